// One version of the AI SDK's chat engine, unmodified, with no page around it.
//
//   node chat.mjs PACKAGE < plays
//
// A play is one line of JSON: {"api": "http://...", "body": {...}, "steps": [...], "tools": {...}, "auto": true}, played
// on a chat of its own. `body` are fields that go with every request. Steps:
//   {"send": "hi", "files": [...]}   sends a message; with "stop": "la" it stops as soon as the answer holds that text
//   {"regenerate": true}             asks for the last answer once more
//   {"resume": true}                 reads on what is being answered; with "anew": true as a page does that was loaded
//                                    anew, and knows nothing of this answer
// With "cut": "la" the connection breaks as soon as the answer holds that text.
// `tools` are tools that the page runs, by name, and what they say. `auto`: their results are sent on by themselves.
// What the chat holds at the end is printed, as one line of JSON a play.
import { createInterface } from 'node:readline';

const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = await import(process.argv[2]);

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  watch = () => {};

  pushMessage = message => this.#set([...this.messages, message]);
  popMessage = () => this.#set(this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    this.#set(this.messages.map((known, place) => (place === index ? structuredClone(message) : known)));
  snapshot = thing => structuredClone(thing);

  #set(messages) {
    this.messages = messages;
    this.watch(messages.at(-1));
  }
}

class Chat extends AbstractChat {}

// As a network that breaks: what was received is received, and nothing more comes.
function breaking(line) {
  return async (url, options) => {
    const response = await fetch(url, options);
    const reader = response.body?.getReader();
    if (!reader) return response;
    const lost = new Promise((_, reject) => (line.cut = () => (reader.cancel(), reject(new TypeError('network error')))));
    lost.catch(() => {});
    const pull = async controller => {
      const { done, value } = await Promise.race([reader.read(), lost]);
      if (done) controller.close();
      else controller.enqueue(value);
    };
    return new Response(new ReadableStream({ pull }), response);
  };
}

async function play({ api, body, steps, tools = {}, auto = false }) {
  const state = new State();
  const data = [];
  const line = {};
  const chat = new Chat({
    id: 'c1',
    state,
    transport: new DefaultChatTransport({ api, body, fetch: breaking(line) }),
    onData: part => data.push(part),
    onToolCall: ({ toolCall }) => {
      const { toolName: tool, toolCallId } = toolCall;
      const output = tool in tools ? tools[tool] : 'this page has no such tool';
      (chat.addToolOutput ?? chat.addToolResult)({ tool, toolCallId, output });
    },
    sendAutomaticallyWhen: auto ? lastAssistantMessageIsCompleteWithToolCalls : undefined,
  });
  for (const step of steps) {
    state.watch = message => {
      const holds = part => part.type === 'text' && part.text.includes(step.stop);
      if (step.stop && message.role === 'assistant' && message.parts.some(holds)) chat.stop();
      const cut = part => part.type === 'text' && part.text.includes(step.cut);
      if (step.cut && message.role === 'assistant' && message.parts.some(cut)) line.cut();
    };
    if (step.anew) state.messages = state.messages.slice(0, -1);
    if (step.resume) await chat.resumeStream();
    else if (step.regenerate) await chat.regenerate();
    else await chat.sendMessage({ text: step.send, ...(step.files && { files: step.files }) });
  }
  return { status: chat.status, error: chat.error?.message, messages: chat.messages, data };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await play(JSON.parse(line))));
}
