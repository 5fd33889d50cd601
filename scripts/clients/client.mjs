// toxiproxy-node-client against the server at TOXIPROXY_URL: every call that it has.
import assert from "node:assert/strict";
import { createServer, connect } from "node:net";
import { once } from "node:events";
import client from "toxiproxy-node-client";

const { Toxiproxy } = client;
const toxiproxy = new Toxiproxy(process.env.TOXIPROXY_URL);

const echo = createServer((socket) => socket.on("error", () => {}).pipe(socket));
echo.listen(0, "127.0.0.1");
await once(echo, "listening");
const upstream = `127.0.0.1:${echo.address().port}`;

/** Milliseconds of one round trip, or the code of the error. */
async function roundTrip(listen) {
  const [host, port] = [listen.slice(0, listen.lastIndexOf(":")), listen.slice(listen.lastIndexOf(":") + 1)];
  const socket = connect(Number(port), host);
  const begun = performance.now();
  try {
    await once(socket, "connect");
    socket.write("ping");
    const [data] = await once(socket, "data");
    assert.equal(String(data), "ping");
    return performance.now() - begun;
  } catch (error) {
    return error.code;
  } finally {
    socket.destroy();
  }
}

assert.match(await toxiproxy.getVersion(), /2\.12\.0/);
const proxy = await toxiproxy.createProxy({ name: "node", listen: "localhost:0", upstream });
assert.match(proxy.listen, /^127\.0\.0\.1:\d+$/);
assert.equal((await toxiproxy.get("node")).upstream, upstream);
await assert.rejects(toxiproxy.createProxy({ name: "node", listen: "localhost:0", upstream }), /409/);
await assert.rejects(toxiproxy.get("none"), /404/);

const latency = await proxy.addToxic({ name: "slow", type: "latency", stream: "downstream", toxicity: 1, attributes: { latency: 300, jitter: 0 } });
assert.ok((await roundTrip(proxy.listen)) >= 295);
await latency.update({ toxicity: 0, attributes: { latency: 5, jitter: 1 } });
const shown = await proxy.getToxic("slow");
assert.deepEqual(shown.attributes, { latency: 5, jitter: 1 });
assert.equal(shown.toxicity, 0);
await shown.remove();
await assert.rejects(proxy.getToxic("slow"), /404/);

await proxy.update({ enabled: false, listen: proxy.listen, upstream });
assert.equal(await roundTrip(proxy.listen), "ECONNREFUSED");
await toxiproxy.reset();
assert.equal(typeof (await roundTrip(proxy.listen)), "number");

const populated = await toxiproxy.populate([{ name: "other", listen: "localhost:0", upstream }]);
assert.ok(populated.other);
assert.deepEqual(Object.keys(await toxiproxy.getAll()), ["node", "other"]);
for (const each of Object.values(await toxiproxy.getAll())) await each.remove();
assert.deepEqual(await toxiproxy.getAll(), {});
echo.close();
