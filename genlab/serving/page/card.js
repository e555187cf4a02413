// What a model is, from its card.

import { make, panel } from "./elements.js"

/** List the direction of each name that edits take where no method is named. */
export function defaultDirections(edits) {
  const names = edits.directions.map(({ name }) => name)
  return edits.directions.filter(({ name }, place) => names.indexOf(name) === place)
}

/** Make the text of a measure: the value to the second digit of its uncertainty, which is half of the 95% interval. */
function measured({ value, interval }) {
  if (value === null) return "not finite"
  const half = interval ? (interval[1] - interval[0]) / 2 : 0
  if (!(half > 0)) return `${Number(value.toPrecision(4))}`
  const decimals = Math.min(Math.max(1 - Math.floor(Math.log10(half)), 0), 8)
  return `${value.toFixed(decimals)} ± ${half.toFixed(decimals)}`
}

/** Make the table of how good a model's pictures are; `null` for a model that was not evaluated. */
function qualityTable(quality) {
  if (!quality.length) return null
  const rows = quality.map((measure) => {
    const { split, rows, ...others } = measure.settings
    const ways = Object.entries(others).filter(([name]) => name.startsWith("sample_")).map(
      ([name, value]) => `${name.slice("sample_".length).replaceAll("_", " ")} ${value}`)
    const facts = [
      measure.images === null ? "" : `${measure.images.toLocaleString("en")} pictures`,
      rows === undefined ? "" : `${rows.toLocaleString("en")} real ones of the split ${split}`,
      others.chosen ? `the checkpoint was chosen ${others.chosen}` : "",
      ...ways,
      `extractor ${measure.extractor}`,
      measure.caution,
    ].filter(Boolean)
    return make("tr", {},
      make("th", { scope: "row" }, measure.title, make("small", { className: "quiet", textContent: facts.join(", ") })),
      make("td", { textContent: measured(measure) }))
  })
  const caption = make("caption", { textContent: "Measured by genlab evaluate: lower is better, ± half of the 95% interval" })
  return make("table", { className: "quality" }, caption, make("tbody", {}, ...rows))
}

/** Make the table of what edits did to pictures that were measured; `null` for a model that has none. */
function editTable(edits) {
  if (!edits) return null
  const signed = (value) => `${value > 0 ? "+" : "−"}${Math.abs(Number(value.toPrecision(3)))}`
  const rows = defaultDirections(edits).flatMap((direction) =>
    direction.effects.map(({ amount, pictures, changes }) => {
      const own = changes[direction.name]
      const towards = amount > 0 ? direction.towards : direction.away
      const asked = direction.towards ? `${direction.name}: ${towards}` : `${direction.name} ${signed(amount)}`
      const others = Object.entries(changes).filter(([name]) => name !== direction.name).map(([name, change]) =>
        change.same_class === null ? `${name} ${signed(change.mean)}` : `${name} the same in ${Math.round(100 * change.same_class)}%`)
      const moved = own.same_class === null ? signed(own.mean) : `${Math.round(100 * (1 - own.same_class))}% change`
      const facts = [...others, `${pictures} pictures`].join(", ")
      return make("tr", {},
        make("th", { scope: "row" }, asked, make("small", { className: "quiet", textContent: facts })),
        make("td", { textContent: moved }))
    }))
  const caption = make("caption", { textContent: "Edits as genlab directions measured them: asked for, and what a classifier reads then" })
  return make("table", { className: "quality" }, caption, make("tbody", {}, ...rows))
}

/** Make the panel of a model's card. */
export function cardPanel(card) {
  const { height, width, channels } = card.image
  const facts = {
    Family: card.family,
    Version: card.version,
    Aliases: Object.entries(card.aliases).map(([alias, version]) => `${alias} (${version})`).join(", "),
    Images: `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}`,
    "Latent dimensions": card.latent_dim || "",
    Classes: card.classes.join(", "),
    Directions: card.directions.join(", "),
    Trained: `${card.step.toLocaleString("en")} steps, ${card.images.toLocaleString("en")} images`,
  }
  const list = make("dl")
  for (const [name, value] of Object.entries(facts)) {
    if (value) list.append(make("dt", { textContent: name }), make("dd", { textContent: value }))
  }
  const metrics = Object.entries(card.metrics)
  const table = metrics.length
    ? make("table", {}, make("caption", { textContent: "Last measured in training" }),
        make("tbody", {}, ...metrics.map(([name, value]) =>
          make("tr", {}, make("th", { scope: "row", textContent: name }),
            make("td", { textContent: value === null ? "not finite" : Number(value.toPrecision(4)) })))))
    : null
  return panel("Model card", list, qualityTable(card.quality), editTable(card.edits), table).node
}
