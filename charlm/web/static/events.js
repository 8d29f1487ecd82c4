/* Keeps Gradio's client from losing the results of an event.

   The server ends its stream of results when the last event of a session has completed, and the client opens another
   stream for the next event. If that event is sent before the client has read the end of the stream, the client opens
   none, and never gets the results. So here the client gets a single stream, which does not end. As long as an event
   has not completed, the next stream of the server is opened and passed on in it. */

export const RESULTS_LOST = "resultslost"; // the event of the window when an event of Gradio's can have no more results

/** Tell components that no further results come. */
export function loseResults() {
  dispatchEvent(new Event(RESULTS_LOST));
}

/** Split a response of server-sent events into its messages, each with the empty line after it. */
async function* messagesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const messages = (rest + value).split(/(?<=\n\n)/);
      rest = messages.at(-1).endsWith("\n\n") ? "" : messages.pop();
      yield* messages;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The results of the events that the page has sent, in one stream for the client. */
class Results {
  constructor(fetch) {
    this.fetch = fetch;
    this.expected = new Set(); // events that have not completed
    this.early = new Set(); // those that completed before the answer to them was read
    this.wake = () => {};
  }

  /** Note that the server has taken an event. */
  expect(event) {
    if (!this.early.delete(event)) this.expected.add(event);
    this.wake();
  }

  /** Return the response to the client's request for the stream. */
  async open(request) {
    const response = await this.fetch(request.clone());
    if (!response.ok) return response;
    const start = (client) => {
      this.pass(client, request, response).catch((error) => {
        if (request.signal.aborted) return;
        loseResults(); // Gradio's client runs no handler after that, and loads the page anew once the server answers
        client.error(error);
      });
    };
    return new Response(new ReadableStream({ start }), response);
  }

  /** Pass on what the server's streams tell, until the client aborts its request. Throws if a connection breaks. */
  async pass(client, request, response) {
    const encoder = new TextEncoder();
    request.signal.addEventListener("abort", () => this.wake());
    for (;;) {
      let isOpen = true;
      for await (const message of messagesOf(response)) {
        if (!(isOpen = this.listen(message))) break;
        client.enqueue(encoder.encode(message));
      }
      if (isOpen) throw new Error("the connection ended before the results did");
      while (!this.expected.size && !request.signal.aborted) await new Promise((resolve) => (this.wake = resolve));
      response = await this.fetch(request.clone());
      if (!response.ok) throw new Error(`the server answers ${response.status} when it is asked for results`);
    }
  }

  /** Note what a message tells; return whether the server's stream goes on after it. */
  listen(message) {
    // most messages are pieces of a result, and need not be parsed
    const told = message.match(/"(close_stream|process_completed|unexpected_error)"/) ? parseMessage(message) : {};
    if (told.msg === "process_completed" && !this.expected.delete(told.event_id)) this.early.add(told.event_id);
    if (told.msg === "unexpected_error") this.expected.clear(); // it ends all events
    return told.msg !== "close_stream";
  }
}

function parseMessage(message) {
  return JSON.parse(message.slice(message.indexOf(":") + 1));
}

/** Return what Gradio's client shall use in place of a fetch. */
export function keepEvents(fetch) {
  const results = new Results(fetch);
  return async (input, init) => {
    const { pathname } = new URL(input.url ?? input, location.href);
    if (pathname.endsWith("/queue/data")) return results.open(new Request(input, init));
    const response = await fetch(input, init);
    if (pathname.endsWith("/queue/join") && response.ok) results.expect((await response.clone().json()).event_id);
    return response;
  };
}
