// OpenAI's SDK for Node, unmodified: what its accumulator makes of a stream.
//
//   node openai.mjs < requests
//
// A line of standard input is {"api": the base URL, "body": ...}; a line of standard output is the completion, or
// {"error": ...}.
import { createInterface } from 'node:readline';
import OpenAI from 'openai';

for await (const line of createInterface({ input: process.stdin })) {
  const { api, body } = JSON.parse(line);
  const client = new OpenAI({ baseURL: api, apiKey: 'none', maxRetries: 0 });
  try {
    const completion = await client.chat.completions.stream(body).finalChatCompletion();
    console.log(JSON.stringify(completion));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, kind: error.constructor.name }));
  }
}
