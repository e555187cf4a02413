const MOST_TRIES = 4 // of work that the server asks to send again later

/**
 * Return a function that runs `work` with its latest arguments, at most once at a time: what was asked for while it ran
 * is run after it, the last of it only. Work whose error has `retryAfter`, in seconds, is run again after them.
 *
 * @param work an async function.
 * @param failed is told of each error.
 */
export function latest(work, failed) {
  let waiting = null
  let running = false
  return async (...values) => {
    waiting = values
    if (running) return
    running = true
    let tries = 0
    while (waiting) {
      const next = waiting
      waiting = null
      try {
        await work(...next)
        tries = 0
      } catch (error) {
        failed(error)
        if (error.retryAfter && ++tries < MOST_TRIES) {
          await new Promise((done) => setTimeout(done, 1000 * error.retryAfter))
          waiting ??= next
        }
      }
    }
    running = false
  }
}
