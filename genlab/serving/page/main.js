// The page: a model is picked by the part of the address after #, and each of its operations has a panel.

import { keepToken, listModels } from "./api.js"
import { cardPanel } from "./card.js"
import { filmPanel, mixPanel, samplePanel } from "./draws.js"
import { make } from "./elements.js"
import { planePanel } from "./plane.js"
import { translatePanel } from "./translate.js"

const find = (id) => document.getElementById(id)
const PANELS = [translatePanel, planePanel, samplePanel, mixPanel, filmPanel, cardPanel]
let cards = []

function show() {
  const wanted = decodeURIComponent(location.hash.slice(1))
  const card = cards.find(({ name }) => name === wanted) ?? cards[0]
  for (const link of find("models").children) {
    if (card && link.textContent === card.name) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  if (!card) return
  document.title = `${card.name} · genlab`
  const panels = PANELS.map((panel) => panel(card)).filter((panel) => panel !== null)
  find("model").replaceChildren(
    make("h2", { textContent: card.name }),
    make("p", { className: "quiet", textContent: `${card.family} · version ${card.version}` }),
    make("div", { className: "panels" }, ...panels))
}

async function load() {
  const problem = find("problem")
  problem.hidden = true
  try {
    cards = await listModels()
    find("sign-in").hidden = true
    if (!cards.length) throw new Error("no model is served")
  } catch (error) {
    problem.textContent = error.message
    problem.hidden = false
    return
  }
  find("models").replaceChildren(
    ...cards.map(({ name }) => make("a", { href: `#${encodeURIComponent(name)}`, textContent: name })))
  show()
}

addEventListener("hashchange", show)
addEventListener("unauthorized", () => {
  find("sign-in").hidden = false
  find("token").focus()
})
find("sign-in").addEventListener("submit", (event) => {
  event.preventDefault()
  keepToken(find("token").value.trim())
  load()
})
load()
