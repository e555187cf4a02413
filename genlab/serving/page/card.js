// What a model is, from its card.

import { make, panel } from "./elements.js"

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
  return panel("Model card", list, table).node
}
