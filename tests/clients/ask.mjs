// Vercel's AI SDK (OpenAI's and Cohere's providers) and AWS' for JavaScript as their users call them; arguments, input and output are those of ask.py.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, client, url, key, name] = process.argv.slice(2);
const required = createRequire(pathToFileURL(`${modules}/package.json`));
const load = async (module) => {
  const loaded = await import(pathToFileURL(required.resolve(module)));
  return { ...loaded.default, ...loaded };
};

async function vercel() {
  const { embed, embedMany } = await load('ai');
  const { createOpenAI } = await load('@ai-sdk/openai');
  const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).embedding(name);
  return {
    package: 'ai',
    many: async (values) => (await embedMany({ model, values })).embeddings,
    one: async (value) => (await embed({ model, value })).embedding,
  };
}

async function cohere() {
  const { embed, embedMany } = await load('ai');
  const { createCohere } = await load('@ai-sdk/cohere');
  const model = createCohere({ baseURL: `${url}/v2`, apiKey: key }).embedding(name);
  const providerOptions = { cohere: { inputType: 'search_document' } }; // else an index is sent as queries
  return {
    package: '@ai-sdk/cohere',
    many: async (values) => (await embedMany({ model, values, providerOptions })).embeddings,
    one: async (value) => (await embed({ model, value })).embedding,
  };
}

async function aws() {
  const { BedrockRuntimeClient, InvokeModelCommand } = await load('@aws-sdk/client-bedrock-runtime');
  const { NodeHttpHandler } = await load('@smithy/node-http-handler');
  const credentials = { accessKeyId: 'none', secretAccessKey: 'none' }; // it signs, which nobody here looks at
  const requestHandler = new NodeHttpHandler(); // its default speaks HTTP/2
  const runtime = new BedrockRuntimeClient({ endpoint: url, region: 'eu-central-1', credentials, requestHandler });
  runtime.middlewareStack.add(
    (next) => (args) => { args.request.headers['x-api-key'] = key; return next(args); },
    { step: 'build' },
  );
  const one = async (inputText) => {
    const answer = await runtime.send(new InvokeModelCommand({ modelId: name, body: JSON.stringify({ inputText }) }));
    return JSON.parse(new TextDecoder().decode(answer.body)).embedding;
  };
  return { package: '@aws-sdk/client-bedrock-runtime', many: (values) => Promise.all(values.map(one)), one };
}

const asked = await { 'Vercel AI': vercel, '@ai-sdk/cohere': cohere, 'AWS SDK for JavaScript': aws }[client]();
const texts = JSON.parse(readFileSync(0));
const documents = await asked.many(texts.documents);
const queries = [];
for (const text of texts.queries) queries.push(await asked.one(text));
const { version } = JSON.parse(readFileSync(`${modules}/node_modules/${asked.package}/package.json`));
console.log(JSON.stringify({ version, documents, queries }));
