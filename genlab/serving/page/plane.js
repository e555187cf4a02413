// The latent space of a model: a place in it, and the picture there.

import { compute, decodedPictures, inJson } from "./api.js"
import { classChoice, fit, form, make, panel, picture, saver, slider, taker } from "./elements.js"
import { latest } from "./latest.js"

const REACH = 3 // of the prior's standard deviations; 99.7 % of each coordinate
const SIDE = 8 // pictures of the map, along each side
const MOST_SLIDERS = 16

/** Make the panel of a model that decodes; `null` where it has too many dimensions for sliders. */
export function planePanel(card) {
  const dimensions = card.latent_dim
  if (!card.operations.includes("decode") || dimensions > MOST_SLIDERS) return null
  const classes = classChoice(card)
  const sliders = Array.from({ length: dimensions }, (_, index) =>
    slider(`z${subscript(index + 1)}`, { min: -REACH, max: REACH, step: 0.01, value: 0 }))
  const shown = picture(card, "The picture at this place of the latent space")
  const caption = make("figcaption", { textContent: " " })
  const label = () => (classes ? { label: classes.value() } : {})
  const place = () => sliders.map(({ input }) => Number(input.value))

  const draw = latest(async (latents, options, moved) => {
    const answer = await compute(card, "decode", { latents: [latents], ...options })
    await shown.show(await answer.blob())
    const milliseconds = Math.round(performance.now() - moved)
    caption.textContent = `z = (${latents.map((value) => value.toFixed(2)).join(", ")}) · ${milliseconds} ms`
    problem(null)
  }, (error) => problem(error))
  const change = () => {
    map?.mark(place())
    draw(place(), label(), performance.now())
  }
  const move = (latents) => {
    latents.forEach((value, index) => sliders[index].set(value))
    change()
  }
  const map = dimensions === 2 ? latentMap(card, move, (error) => problem(error)) : null
  if (classes) classes.node.addEventListener("input", () => map?.draw(label()))

  const original = picture(card, "The picture that was given, in the model's size")
  const given = make("figure", { hidden: true }, original.img, make("figcaption", { textContent: "given" }))
  const find = latest(async (file) => {
    const fitted = await fit(file, card.image)
    // In JSON a class is a number; as text it would be looked for among the names first.
    const answer = await compute(card, "encode", { image: await inJson(fitted), ...label() }, "application/json")
    move((await answer.json()).latents[0])
    await original.show(fitted)
    given.hidden = false
  }, (error) => problem(error))

  const figure = make("figure", {}, shown.img, caption)
  const { node, problem } = panel("Latent space",
    form(change, classes?.node ?? null,
      map ? make("div", { className: "pair" }, map.node, figure) : figure,
      make("div", { className: "row" }, ...sliders.map((each) => each.label)),
      make("div", { className: "row after" }, saver(shown.img, `${card.name}.png`)),
      taker("Find the place of a picture", find), given))
  map?.draw(label())
  change()
  return node
}

/** Make a map of the plane, which is moved over by pointer; sliders do the same by keyboard. */
function latentMap(card, move, failed) {
  const { height, width } = card.image
  const canvas = make("canvas", { width: width * SIDE, height: height * SIDE })
  if (height <= 64) canvas.classList.add("small-pixels")
  const dot = make("span", { className: "place" })
  const node = make("div", { className: "plane", ariaHidden: "true" }, canvas, dot)
  const at = (event) => {
    const box = node.getBoundingClientRect()
    const clip = (share) => Math.min(1, Math.max(0, share))
    const x = clip((event.clientX - box.left) / box.width), y = clip((event.clientY - box.top) / box.height)
    move([(2 * x - 1) * REACH, (1 - 2 * y) * REACH])
  }
  node.addEventListener("pointerdown", (event) => {
    node.setPointerCapture(event.pointerId)
    at(event)
  })
  node.addEventListener("pointermove", (event) => event.buttons && at(event))
  const centre = (index) => ((2 * index + 1) / SIDE - 1) * REACH
  const draw = latest(async (options) => {
    const indices = Array.from({ length: SIDE * SIDE }, (_, index) => [index % SIDE, Math.floor(index / SIDE)])
    const latents = indices.map(([column, row]) => [centre(column), -centre(row)])
    const answer = await compute(card, "decode", { latents, ...options }, "application/json")
    const context = canvas.getContext("2d")
    const pictures = await decodedPictures(answer)
    indices.forEach(([column, row], index) => context.drawImage(pictures[index], column * width, row * height))
  }, failed)
  const mark = ([x, y]) => {
    dot.style.left = `${(x / REACH + 1) * 50}%`
    dot.style.top = `${(1 - y / REACH) * 50}%`
  }
  return { node, draw, mark }
}

function subscript(number) {
  return [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("")
}
