/**
 * Return a function that runs `work` with its latest arguments, at most once at a time: what was asked for while it ran
 * is run after it, the last of it only.
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
    while (waiting) {
      const next = waiting
      waiting = null
      try {
        await work(...next)
      } catch (error) {
        failed(error)
      }
    }
    running = false
  }
}
