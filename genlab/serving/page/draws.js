// Pictures of seeds: samples, the way between two, and mixed styles.

import { compute } from "./api.js"
import { classChoice, field, form, make, number, ownOptions, panel, picture, randomSeed, saver, seedControl } from "./elements.js"
import { film } from "./film.js"
import { latest } from "./latest.js"

const MOST_SAMPLES = 64

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
  const change = () => shown.load(parameters())
  const seeds = [seedControl("First seed", randomSeed(), () => change()), seedControl("Last seed", randomSeed(), () => change())]
  const classes = classChoice(card)
  const own = ownOptions(card, "interpolate_draws", ["steps"])
  const parameters = () => ({
    seeds: seeds.map((seed) => seed.value()),
    ...(classes ? { label: classes.value() } : {}),
    ...own.values(),
  })
  const shown = film(card, (asked, accept) => compute(card, "interpolate_draws", asked, accept), (error) => problem(error))
  const { node, problem } = panel("From seed to seed",
    form(change, ...seeds.map((seed) => make("div", { className: "row" }, ...seed.nodes)), classes?.node ?? null,
      own.nodes.length ? make("div", { className: "row" }, ...own.nodes) : null),
    ...shown.nodes)
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
