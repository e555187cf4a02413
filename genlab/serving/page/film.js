// A film: pictures on the way from one to another.

import { decodedPictures } from "./api.js"
import { make, slider } from "./elements.js"
import { latest } from "./latest.js"

const FRAMES = 30
const FRAMES_A_SECOND = 15

/**
 * Make a film and its controls: `nodes`, and `load(parameters)`, which shows another film.
 *
 * @param card of the model.
 * @param ask asks the model for the film of parameters in a media type, and returns the Response.
 * @param problem is told of each error, and of `null` where there is none any more.
 */
export function film(card, ask, problem) {
  const { height, width } = card.image
  const canvas = make("canvas", { width, height, ariaLabel: "The picture on the way", attributes: { role: "img" } })
  if (height <= 64) canvas.classList.add("small-pixels")
  const figure = make("figure", { className: "film", hidden: true }, canvas)
  const frame = slider("Frame", { min: 1, max: FRAMES, step: 1, value: 1 })
  frame.input.addEventListener("input", () => show())
  let frames = []
  let parameters = null
  const show = () => {
    if (frames.length) canvas.getContext("2d").drawImage(frames[frame.input.value - 1], 0, 0)
  }
  const load = latest(async (asked) => {
    frames = await decodedPictures(await ask({ ...asked, steps: FRAMES }, "application/json"))
    parameters = asked
    figure.hidden = frame.label.hidden = buttons.hidden = false
    show()
    problem(null)
  }, problem)

  let timer = null
  let forward = 1
  const play = make("button", { type: "button", textContent: "Play" })
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer)
      timer = null
    } else {
      timer = setInterval(() => {
        if (!canvas.isConnected) return clearInterval(timer)
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
      const answer = await ask({ ...parameters, steps: FRAMES, frames_per_second: FRAMES_A_SECOND }, "image/gif")
      const href = URL.createObjectURL(await answer.blob())
      make("a", { href, download: `${card.name}-film.gif` }).click()
      setTimeout(() => URL.revokeObjectURL(href), 60_000)
      problem(null)
    } catch (error) {
      problem(error)
    }
  })
  const buttons = make("div", { className: "row after", hidden: true }, play, save)
  frame.label.hidden = true
  return { nodes: [figure, frame.label, buttons], load }
}
