// Requests to the server that this page comes from.

const TOKEN = "genlab-token"

/** An answer that is a problem (RFC 9457), or none at all. */
export class Refusal extends Error {
  constructor(detail, retryAfter = 0) {
    super(detail)
    this.retryAfter = retryAfter // seconds; 0 where it does not help to ask again
  }
}

/** Keep the bearer token of this tab. */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token)
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN)
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) }
  let answer
  try {
    answer = await fetch(path, { ...options, headers })
  } catch {
    throw new Refusal("the server does not answer")
  }
  if (answer.ok) return answer
  const problem = await answer.json().catch(() => ({}))
  if (answer.status === 401) dispatchEvent(new Event("unauthorized"))
  throw new Refusal(problem.detail ?? `the server answers ${answer.status}`, Number(answer.headers.get("Retry-After")))
}

/** Return the cards of all models, each with the `reference` by which it is asked: its name. */
export async function listModels() {
  return (await (await ask("v1/models")).json()).map((card) => ({ ...card, reference: card.name }))
}

/** Return the card of a model by `reference`: NAME, NAME@ALIAS or NAME@VERSION. */
export async function modelOf(reference) {
  return { ...(await (await ask(`v1/models/${encodeURIComponent(reference)}`)).json()), reference }
}

function route(card, operation) {
  return `v1/models/${encodeURIComponent(card.reference)}/${operation}`
}

/** Ask an operation with parameters in JSON; return the answer as a Response. */
export function compute(card, operation, parameters, accept = "image/png") {
  return ask(route(card, operation), {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: accept },
    body: JSON.stringify(parameters),
  })
}

/** Ask an operation that takes one picture, a Blob, with parameters in the query; return the answer as a Response. */
export function computeOf(card, operation, picture, parameters, accept = "image/png") {
  const query = new URLSearchParams(parameters)
  return ask(`${route(card, operation)}?${query}`, {
    method: "POST",
    headers: { "Content-Type": picture.type || "application/octet-stream", Accept: accept },
    body: picture,
  })
}

/** Return the file of a picture, a Blob, as it stands in parameters in JSON: in base64. */
export function inJson(picture) {
  return new Promise((done, failed) => {
    const reader = new FileReader()
    reader.addEventListener("load", () => done(reader.result.slice(reader.result.indexOf(",") + 1)))
    reader.addEventListener("error", () => failed(new Error("this browser cannot read the file")))
    reader.readAsDataURL(picture)
  })
}

/** Return the pictures of an answer in JSON, decoded. */
export async function decodedPictures(answer) {
  const { type, pictures } = await answer.json()
  return Promise.all(pictures.map((text) => decoded(`data:${type};base64,${text}`)))
}

/** Load a picture. */
export async function decoded(url) {
  const image = new Image()
  image.src = url
  await image.decode()
  return image
}
