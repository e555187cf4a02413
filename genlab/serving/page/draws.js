// Pictures of seeds: samples, the way between two, and mixed styles.

import { compute, decodedPictures } from "./api.js"
import { classChoice, field, form, make, number, ownOptions, panel, picture, randomSeed, saver, seedControl, slider } from "./elements.js"
import { latest } from "./latest.js"

const MOST_SAMPLES = 64
const FRAMES = 30
const FRAMES_A_SECOND = 15

/** Make the panel of samples; `null` for a model that draws none. */
export function samplePanel(card) {
  if (!card.operations.includes("sample")) return null
  const change = () =>
    draw({ seed: seed.value(), count: Number(count.value), label: classes?.value() ?? null, ...own.values() })
  const seed = seedControl("Seed", randomSeed(), change)
  const count = number(16, 1, MOST_SAMPLES)
  const classes = classChoice(card, true)
  const own = ownOptions(card, "sample")
  const shown = picture(card, "Samples of the model")
  const draw = latest(async (parameters) => {
    const answer = await compute(card, "sample", parameters)
    await shown.show(await answer.blob())
    problem(null)
  }, (error) => problem(error))
  const { node, problem } = panel("Samples",
    form(change, make("div", { className: "row" }, ...seed.nodes), classes?.node ?? null,
      make("div", { className: "row" }, field("Pictures", count), ...own.nodes)),
    make("figure", {}, shown.img),
    make("div", { className: "row after" }, saver(shown.img, `${card.name}-samples.png`)))
  change()
  return node
}

/** Make the panel of a film between the pictures of two seeds; `null` for a model that has none. */
export function filmPanel(card) {
  if (!card.operations.includes("interpolate_draws")) return null
  const change = () => load(parameters())
  const seeds = [seedControl("First seed", randomSeed(), () => change()), seedControl("Last seed", randomSeed(), () => change())]
  const classes = classChoice(card)
  const own = ownOptions(card, "interpolate_draws", ["steps"])
  const parameters = () => ({
    seeds: seeds.map((seed) => seed.value()),
    steps: FRAMES,
    ...(classes ? { label: classes.value() } : {}),
    ...own.values(),
  })
  const canvas = make("canvas", { width: card.image.width, height: card.image.height, ariaLabel: "The picture on the way", attributes: { role: "img" } })
  if (card.image.height <= 64) canvas.classList.add("small-pixels")
  const frame = slider("Frame", { min: 1, max: FRAMES, step: 1, value: 1 })
  let frames = []
  const show = () => {
    if (frames.length) canvas.getContext("2d").drawImage(frames[frame.input.value - 1], 0, 0)
  }
  frame.input.addEventListener("input", (event) => {
    event.stopPropagation() // it asks for no new film
    show()
  })
  const load = latest(async (asked) => {
    frames = await decodedPictures(await compute(card, "interpolate_draws", asked, "application/json"))
    show()
    problem(null)
  }, (error) => problem(error))

  let timer = null
  let forward = 1
  const play = make("button", { type: "button", textContent: "Play" })
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer)
      timer = null
    } else {
      timer = setInterval(() => {
        if (!node.isConnected) return clearInterval(timer)
        const next = Number(frame.input.value) + forward
        if (next < 1 || next > FRAMES) forward = -forward
        else frame.set(next)
        show()
      }, 1000 / FRAMES_A_SECOND)
    }
    play.textContent = timer ? "Pause" : "Play"
  })
  const save = make("button", { type: "button", textContent: "Download GIF" })
  save.addEventListener("click", async () => {
    try {
      const asked = { ...parameters(), frames_per_second: FRAMES_A_SECOND }
      const answer = await compute(card, "interpolate_draws", asked, "image/gif")
      const href = URL.createObjectURL(await answer.blob())
      make("a", { href, download: `${card.name}-film.gif` }).click()
      setTimeout(() => URL.revokeObjectURL(href), 60_000)
      problem(null)
    } catch (error) {
      problem(error)
    }
  })
  const { node, problem } = panel("From seed to seed",
    form(change, ...seeds.map((seed) => make("div", { className: "row" }, ...seed.nodes)), classes?.node ?? null,
      own.nodes.length ? make("div", { className: "row" }, ...own.nodes) : null, frame.label),
    make("figure", { className: "film" }, canvas),
    make("div", { className: "row after" }, play, save))
  change()
  return node
}

/** Make the panel that mixes styles; `null` for a model without. */
export function mixPanel(card) {
  if (!card.operations.includes("mix_styles")) return null
  const list = (value) => make("input", { type: "text", value, required: true, pattern: "\\s*\\d+([\\s,]+\\d+)*\\s*", inputMode: "numeric" })
  const numbers = (input) => (input.value.match(/\d+/g) ?? []).map(Number)
  const rows = list("1 2 3")
  const columns = list("4 5 6")
  const classes = classChoice(card)
  const own = ownOptions(card, "mix_styles")
  const shown = picture(card, "Pictures of the rows' seeds with styles of the columns'")
  const draw = latest(async (asked) => {
    await shown.show(await (await compute(card, "mix_styles", asked)).blob())
    problem(null)
  }, (error) => problem(error))
  const change = () =>
    draw({ rows: numbers(rows), columns: numbers(columns), ...(classes ? { label: classes.value() } : {}), ...own.values() })
  const { node, problem } = panel("Mixed styles",
    form(change,
      make("div", { className: "row" }, field("Seeds of the rows", rows), field("Seeds of the columns, whose styles they get", columns)),
      classes?.node ?? null, make("div", { className: "row" }, ...own.nodes)),
    make("figure", {}, shown.img),
    make("div", { className: "row after" }, saver(shown.img, `${card.name}-mixed.png`)))
  change()
  return node
}
