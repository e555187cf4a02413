// The page: a model, or a version of it, is picked by the part of the address after #; each operation has a panel.

import { keepToken, listModels, modelOf } from "./api.js"
import { betweenPanel } from "./between.js"
import { cardPanel } from "./card.js"
import { filmPanel, mixPanel, samplePanel } from "./draws.js"
import { editPanel } from "./edit.js"
import { field, make } from "./elements.js"
import { latest } from "./latest.js"
import { planePanel } from "./plane.js"
import { translatePanel } from "./translate.js"

const find = (id) => document.getElementById(id)
const PANELS = [translatePanel, planePanel, editPanel, samplePanel, mixPanel, filmPanel, betweenPanel, cardPanel]
let cards = []

const anchor = (reference) => `#${encodeURIComponent(reference)}`

function say(error) {
  find("problem").hidden = error === null
  find("problem").textContent = error?.message ?? ""
}

const show = latest(async () => {
  const wanted = decodeURIComponent(location.hash.slice(1))
  const listed = cards.find(({ name }) => name === wanted.split("@")[0]) ?? cards[0]
  for (const link of find("models").children) {
    if (listed && link.textContent === listed.name) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  if (!listed) return
  const named = wanted.startsWith(`${listed.name}@`)
  const choice = versionChoice(listed, named ? wanted : listed.name)
  const head = [make("h2", { textContent: listed.name }), choice]
  let card
  try {
    card = named ? await modelOf(wanted) : listed
  } catch (error) {
    find("model").replaceChildren(...head.filter((node) => node !== null))
    throw error
  }
  document.title = `${card.reference} · genlab`
  const panels = PANELS.map((panel) => panel(card, cards)).filter((panel) => panel !== null)
  head.splice(1, 0, make("p", { className: "quiet", textContent: `${card.family} · version ${card.version}` }))
  find("model").replaceChildren(
    ...head.filter((node) => node !== null), make("div", { className: "panels" }, ...panels))
  say(null)
}, say)

/** Make the choice of an alias or a version of a model; `null` for a model that has one version. */
function versionChoice(card, reference) {
  if (card.versions.length < 2) return null
  const aliases = Object.entries(card.aliases).filter(([, version]) => card.versions.includes(version))
  const options = [
    [`default (${card.version})`, card.name],
    ...aliases.map(([alias, version]) => [`${alias} (${version})`, `${card.name}@${alias}`]),
    ...card.versions.map((version) => [version, `${card.name}@${version}`]),
  ]
  const select = make("select", {}, ...options.map(([textContent, value]) => make("option", { value, textContent })))
  select.value = reference
  select.addEventListener("change", () => (location.hash = anchor(select.value)))
  return field("Version", select)
}

async function load() {
  say(null)
  try {
    cards = await listModels()
    find("sign-in").hidden = true
    if (!cards.length) throw new Error("no model is served")
  } catch (error) {
    say(error)
    return
  }
  find("models").replaceChildren(...cards.map(({ name }) => make("a", { href: anchor(name), textContent: name })))
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
