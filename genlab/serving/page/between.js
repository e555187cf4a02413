// The way between two pictures that are given.

import { compute, inJson } from "./api.js"
import { classChoice, fit, form, make, ownOptions, panel, picture, taker } from "./elements.js"
import { film } from "./film.js"
import { latest } from "./latest.js"

/** Make the panel of a film between two pictures; `null` for a model that does not encode. */
export function betweenPanel(card) {
  if (!card.operations.includes("interpolate")) return null
  const classes = classChoice(card)
  const own = ownOptions(card, "interpolate", ["steps"])
  const ends = ["first", "last"].map((which) => {
    const shown = picture(card, `The ${which} picture, in the model's size`)
    const end = { image: null }
    const take = latest(async (given) => {
      const fitted = await fit(given, card.image)
      await shown.show(fitted)
      end.image = await inJson(fitted)
      problem(null)
      change()
    }, (error) => problem(error))
    end.node = make("div", {}, taker(`Choose the ${which} picture`, take), make("figure", {}, shown.img))
    return end
  })
  const shown = film(card, (asked, accept) => compute(card, "interpolate", asked, accept), (error) => problem(error))
  const change = () => {
    const [begin, end] = ends.map(({ image }) => image)
    if (begin && end) shown.load({ begin, end, ...(classes ? { label: classes.value() } : {}), ...own.values() })
  }
  const { node, problem } = panel("From picture to picture",
    form(change, classes?.node ?? null, own.nodes.length ? make("div", { className: "row" }, ...own.nodes) : null),
    make("div", { className: "pair" }, ...ends.map((end) => end.node)),
    ...shown.nodes)
  return node
}
