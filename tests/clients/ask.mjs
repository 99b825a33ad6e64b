// Vercel's AI SDK as its users call it; see ask.py, whose arguments, input and output are the same.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, , url, key, name] = process.argv.slice(2);
const required = createRequire(pathToFileURL(`${modules}/package.json`));
const { embed, embedMany } = await import(pathToFileURL(required.resolve('ai')));
const { createOpenAI } = await import(pathToFileURL(required.resolve('@ai-sdk/openai')));
const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).embedding(name);
const texts = JSON.parse(readFileSync(0));
const documents = (await embedMany({ model, values: texts.documents })).embeddings;
const queries = [];
for (const value of texts.queries) queries.push((await embed({ model, value })).embedding);
const { version } = JSON.parse(readFileSync(`${modules}/node_modules/ai/package.json`));
console.log(JSON.stringify({ version, documents, queries }));
