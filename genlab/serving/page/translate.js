// A picture and its translation, with a wipe between them.

import { computeOf } from "./api.js"
import { choice, form, make, ownOptions, panel, picture, saver, slider, taker } from "./elements.js"
import { latest } from "./latest.js"

/** Make the panel of a model that translates; `null` for others. */
export function translatePanel(card) {
  if (!card.operations.includes("translate")) return null
  let file = null
  const directions = choice("Direction", card.directions.map((name) => [name.split("_").join(" "), name]))
  const own = ownOptions(card, "translate")
  const original = make("img", { alt: "The picture that was given" })
  const translated = picture(card, "The translated picture")
  translated.img.classList.add("above")
  const view = make("div", { className: "wipe" }, original, translated.img, make("span", { className: "edge" }))
  const wipe = slider("Original ← wipe → translation", { min: 0, max: 100, step: 1, value: 50 })
  const share = () => view.style.setProperty("--share", `${100 - wipe.input.value}%`)
  wipe.input.addEventListener("input", share)
  const status = make("figcaption", { attributes: { role: "status" } })
  const figure = make("figure", { hidden: true }, view, status)

  const translate = latest(async (given, parameters) => {
    status.textContent = "translating …"
    const begin = performance.now()
    try {
      const answer = await computeOf(card, "translate", given, parameters)
      await translated.show(await answer.blob())
      status.textContent = `${given.name ?? "picture"} · ${((performance.now() - begin) / 1000).toFixed(1)} s`
      problem(null)
    } catch (error) {
      status.textContent = ""
      throw error
    }
  }, (error) => problem(error))
  const change = () => file && translate(file, { direction: directions.value(), ...own.values() })
  const take = (given) => {
    file = given
    if (original.src) URL.revokeObjectURL(original.src)
    original.src = URL.createObjectURL(given)
    translated.img.hidden = true
    problem(null)
    figure.hidden = wipe.label.hidden = false
    change()
  }
  wipe.label.hidden = true
  share()
  const { node, problem } = panel("Translate a picture",
    form(change, directions.node, own.nodes.length ? make("div", { className: "row" }, ...own.nodes) : null,
      taker("Choose a picture", take)),
    figure, wipe.label,
    make("div", { className: "row after" }, saver(translated.img, `${card.name}.png`)))
  return node
}
