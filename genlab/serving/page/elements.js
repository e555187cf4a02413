// Elements of the page: each function returns DOM nodes.

import { decoded } from "./api.js"

/** Make an element: properties are set on it, those of `attributes` as attributes; children follow. */
export function make(name, properties = {}, ...children) {
  const { attributes = {}, ...others } = properties
  const element = Object.assign(document.createElement(name), others)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children.filter((child) => child !== null))
  return element
}

/** Make a control with its name above. */
export function field(name, control, wide = false) {
  return make("label", { className: wide ? "field wide" : "field" }, make("span", { textContent: name }), control)
}

/** Make a slider that shows its value. Its `input` is the control. */
export function slider(name, { min, max, step, value }) {
  const input = make("input", { type: "range", min, max, step, value })
  const shown = make("span", { ariaHidden: "true" }) // the control says it by itself
  const show = () => (shown.textContent = Number(input.value).toFixed(step < 1 ? 2 : 0))
  input.addEventListener("input", show)
  show()
  const label = make("label", { className: "field wide" },
    make("span", { className: "named" }, make("span", { textContent: name }), shown), input)
  return { label, input, set: (number) => ((input.value = number), show()) }
}

/** Make a number control. */
export function number(value, min, max, step = 1) {
  return make("input", { type: "number", value, min, max, step, required: true, inputMode: "numeric" })
}

const MANY = 20
let groups = 0

/** Make a choice of few as buttons, of many as a list: `value()` is the chosen one of `options`, [text, value]. */
export function choice(name, options) {
  if (options.length > MANY) {
    const select = make("select", {}, ...options.map(([text], index) => make("option", { value: index, textContent: text })))
    return { node: field(name, select), value: () => options[select.value][1] }
  }
  const group = `choice-${groups++}`
  const inputs = options.map((_, index) => make("input", { type: "radio", name: group, value: index, checked: index === 0 }))
  const labels = options.map(([text], index) => make("label", {}, inputs[index], make("span", { textContent: text })))
  const node = make("fieldset", {}, make("legend", { textContent: name }), make("div", { className: "choices" }, ...labels))
  return { node, value: () => options[inputs.findIndex((input) => input.checked)][1] }
}

/** Make the choice of a model's class; `null` for a model without. With `every`, its classes in turn are the first. */
export function classChoice(card, every = false) {
  if (!card.classes.length) return null
  const named = card.classes.map((text, label) => [text, label])
  return choice("Class", every ? [["all", null], ...named] : named)
}

/** Make controls of the options of a model's own of an operation: `nodes`, and `values()` by name. */
export function ownOptions(card, operation, without = []) {
  const nodes = []
  const readers = {}
  for (const [name, schema] of Object.entries(card.options[operation])) {
    if (without.includes(name)) continue
    const title = schema.title ?? name
    let control, node
    if (schema.enum) {
      control = make("select", {}, ...schema.enum.map((value) => make("option", { value, textContent: value })))
      control.value = schema.default
      node = field(title, control)
    } else if (schema.type === "number" && "minimum" in schema && "maximum" in schema) {
      const made = slider(title, { min: schema.minimum, max: schema.maximum, step: 0.05, value: schema.default })
      control = made.input
      node = made.label
    } else if (schema.type === "integer" || schema.type === "number") {
      control = number(schema.default, schema.minimum, schema.maximum, schema.type === "integer" ? 1 : "any")
      node = field(title, control)
    } else continue
    node.title = schema.description ?? ""
    nodes.push(node)
    readers[name] = () => (schema.enum ? control.value : Number(control.value))
  }
  return { nodes, values: () => Object.fromEntries(Object.entries(readers).map(([name, read]) => [name, read()])) }
}

/** Make a panel; `problem(error)` shows an error in it, and `problem(null)` none. */
export function panel(title, ...children) {
  const alert = make("p", { className: "problem", hidden: true, attributes: { role: "alert" } })
  const heading = make("h3", { textContent: title })
  const node = make("section", { className: "panel", ariaLabel: title }, heading, ...children, alert)
  const problem = (error) => {
    alert.hidden = error === null
    alert.textContent = error === null ? "" : error.message
  }
  return { node, problem }
}

/** Make a form whose every change calls `change`. */
export function form(change, ...children) {
  const node = make("form", {}, ...children)
  node.addEventListener("input", () => node.checkValidity() && change())
  node.addEventListener("submit", (event) => {
    event.preventDefault()
    change()
  })
  return node
}

/** Make a place for a picture; `show(blob)` shows one in place of the last. */
export function picture(card, alt) {
  const img = make("img", { alt, hidden: true })
  if (card.image.height <= 64) img.classList.add("small-pixels")
  const show = async (blob) => {
    const before = img.src
    img.src = URL.createObjectURL(blob)
    await img.decode()
    img.hidden = false
    if (before) URL.revokeObjectURL(before)
  }
  return { img, show }
}

/** Make a link that saves what an `img` shows. */
export function saver(img, name) {
  const link = make("a", { className: "button", textContent: "Download", download: name, href: "#", hidden: true })
  img.addEventListener("load", () => {
    link.href = img.src
    link.hidden = false
  })
  return link
}

/** Make a seed's control, with buttons that draw another and copy it. */
export function seedControl(name, value, change) {
  const input = number(value, 0, 2 ** 31 - 1)
  const another = make("button", { type: "button", textContent: "Another", ariaLabel: `Another ${name.toLowerCase()}` })
  another.addEventListener("click", () => {
    input.value = randomSeed()
    change()
  })
  const copy = make("button", { type: "button", textContent: "Copy", ariaLabel: `Copy ${name.toLowerCase()}` })
  copy.addEventListener("click", async () => {
    input.select()
    try {
      await navigator.clipboard.writeText(input.value)
      copy.textContent = "Copied"
    } catch {
      copy.textContent = "Selected" // the clipboard is for pages of https and loopback
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500)
  })
  return { input, nodes: [field(name, input), another, copy], value: () => Number(input.value) }
}

/** Draw a seed, below a million: easy to read out. */
export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000
}

/** Make a control that takes a picture, chosen or dropped; `taken(file)` is told. */
export function taker(text, taken) {
  const input = make("input", { type: "file", accept: "image/*" })
  const button = make("span", { className: "button", textContent: text })
  const node = make("div", { className: "drop" }, make("label", {}, input, button), " or drop it here")
  input.addEventListener("change", () => input.files.length && taken(input.files[0]))
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    node.addEventListener(kind, (event) => {
      event.preventDefault()
      node.classList.toggle("over", kind === "dragenter" || kind === "dragover")
    })
  }
  node.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files
    if (file) taken(file)
  })
  return node
}

/** Scale a picture to the model's size, or with `crop` the largest part of its shape in the middle: a PNG. */
export async function fit(file, { height, width }, crop = false) {
  const url = URL.createObjectURL(file)
  try {
    const image = await decoded(url).catch(() => {
      throw new Error("this browser cannot read the file as a picture")
    })
    const canvas = make("canvas", { height, width })
    const context = canvas.getContext("2d")
    context.imageSmoothingQuality = "high"
    let { naturalWidth: wide, naturalHeight: high } = image
    if (crop) [wide, high] = [Math.min(wide, (high * width) / height), Math.min(high, (wide * height) / width)]
    const left = (image.naturalWidth - wide) / 2, top = (image.naturalHeight - high) / 2
    context.drawImage(image, left, top, wide, high, 0, 0, width, height)
    return await new Promise((done) => canvas.toBlob(done, "image/png"))
  } finally {
    URL.revokeObjectURL(url)
  }
}
