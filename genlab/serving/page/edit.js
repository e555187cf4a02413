// A picture of a seed, or a photo, and the same with attributes changed: a slider or a switch for each direction.

import { compute, inJson } from "./api.js"
import { defaultDirections } from "./card.js"
import { choice, classChoice, fit, form, make, panel, picture, randomSeed, saver, seedControl, slider, taker } from "./elements.js"
import { latest } from "./latest.js"

const STEPS = 20 // of a slider, at least

/** Make the panel of edits; `null` for a model without. Photos are taken where an encoder of the model is in `cards`. */
export function editPanel(card, cards) {
  if (!card.operations.includes("edit")) return null
  const encoder = cards.find(({ generator }) => generator && generator === card.weights)
  const directions = defaultDirections(card.edits)
  const controls = directions.map((direction) => (direction.towards ? classSwitch : amountSlider)(direction))
  const classes = classChoice(card)
  const views = {
    original: view(card, "The photo, as the model sees it", "photo"),
    before: view(card, "The picture before the edit", "before"),
    after: view(card, "The edited picture", "edited"),
  }
  views.original.node.hidden = true
  let styles = null // of the photo
  let shown = "" // what `before` was drawn of

  const asked = () => styles ? { latents: styles } : { seed: seed.value(), ...(classes ? { label: classes.value() } : {}) }
  const draw = latest(async (source, edits) => {
    const key = JSON.stringify(source)
    if (key !== shown) {
      await views.before.show(await (await compute(card, "edit", source)).blob())
      shown = key
    }
    await views.after.show(await (await compute(card, "edit", { ...source, edits })).blob())
    problem(null)
  }, (error) => problem(error))
  const change = () => {
    const amounts = controls.map(({ amount }, index) => ({ direction: directions[index].name, amount: amount() }))
    draw(asked(), amounts.filter(({ amount }) => amount))
  }
  const drawSeed = () => {
    styles = null
    views.original.node.hidden = true
    change()
  }
  const seed = seedControl("Seed", randomSeed(), drawSeed)
  for (const input of [seed.input, ...(classes ? classes.node.querySelectorAll("input, select") : [])]) {
    input.addEventListener("input", () => (styles = null, views.original.node.hidden = true))
  }
  const take = latest(async (file) => {
    const fitted = await fit(file, card.image, true)
    const answer = await compute(encoder, "encode", { image: await inJson(fitted) }, "application/json")
    styles = (await answer.json()).latents[0]
    await views.original.show(fitted)
    views.original.node.hidden = false
    change()
  }, (error) => problem(error))
  const cautions = make("ul", { className: "quiet" }, ...card.edits.cautions.map((textContent) => make("li", { textContent })))

  const { node, problem } = panel("Edit a picture",
    form(change,
      make("div", { className: "row" }, ...seed.nodes), classes?.node ?? null,
      encoder ? taker("Choose a photo", take) : null,
      encoder ? make("p", { className: "quiet", textContent:
        "The largest square in its middle is taken: crop it as the pictures that the model was trained on." }) : null,
      make("div", { className: "beside" }, ...Object.values(views).map((each) => each.node)),
      ...controls.map((control) => control.node)),
    make("div", { className: "row after" }, saver(views.after.img, `${card.name}-edited.png`)),
    make("details", {}, make("summary", { textContent: "What this shows, and what not" }), cautions))
  change()
  return node
}

function view(card, alt, text) {
  const shown = picture(card, alt)
  return { ...shown, node: make("figure", {}, shown.img, make("figcaption", { textContent: text })) }
}

/** Make the slider of a number: `amount()` in the units of its column. */
function amountSlider({ name, low, high }) {
  const step = 10 ** Math.floor(Math.log10((high - low) / STEPS)) // 0.1, 1, ...
  const inside = (end) => Number((Math.trunc(end / step) * step).toPrecision(6))
  const { label, input } = slider(`${name}, more or less`, { min: inside(low), max: inside(high), step, value: 0 })
  return { node: label, amount: () => Number(input.value) }
}

/** Make the switch of a class: the amount towards it is that by which edits were measured. */
function classSwitch({ name, towards, away, effects }) {
  const to = (sign) => effects.find(({ amount }) => amount * sign > 0)?.amount
  const ways = [["as it is", 0], [away, to(-1)], [towards, to(1)]].filter(([text, amount]) => text && amount !== undefined)
  const { node, value } = choice(name, ways)
  return { node, amount: value }
}
