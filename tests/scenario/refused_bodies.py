#!/usr/bin/env python3
"""A body twice as large as the server takes, of known length and in chunks, again and again: Python's
http.client, curl, and node's fetch and http.request all see the 413. After one of known length the
connection goes on; after chunks the server says that it closes it, as after any chunks."""
import http.client
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import Server, main  # noqa: E402

LIMIT, ROUNDS = 4 << 20, 8
BODY = 2 * LIMIT
PATH = "/v1/sessions"

NODE = """
const http = require('http');
const [port, size, rounds] = process.argv.slice(1).map(Number);
const url = `http://127.0.0.1:${port}`, body = Buffer.alloc(size, 32);
const headers = {'Content-Type': 'application/json'};
const agent = new http.Agent({keepAlive: true, maxSockets: 1}), ports = new Set();

function pieces() {
  let sent = 0;
  return new ReadableStream({
    pull(controller) {
      if (sent >= size) return controller.close();
      controller.enqueue(body.subarray(sent, sent + 65536));
      sent += 65536;
    },
  });
}

function request(method, path, chunked) {
  return new Promise((resolve, reject) => {
    const more = method === 'POST' && !chunked ? {'Content-Length': size} : {};
    const asked = http.request(url + path, {method, agent, headers: {...headers, ...more}}, (answer) => {
      let text = '';
      ports.add(asked.socket.localPort);
      answer.on('data', (data) => text += data);
      answer.on('end', () => resolve([answer.statusCode, JSON.parse(text).code]));
    });
    asked.on('error', reject);
    if (method === 'POST' && chunked)
      for (let sent = 0; sent < size; sent += 65536) asked.write(body.subarray(sent, sent + 65536));
    else if (method === 'POST')
      asked.write(body);
    asked.end();
  });
}

async function main() {
  const seen = {fetch: [], chunks: [], request: [], written: []};
  for (let i = 0; i < rounds; i++) {
    for (const [name, body_of] of [['fetch', () => body], ['chunks', pieces]]) {
      const answer = await fetch(url + '/v1/sessions', {method: 'POST', headers, body: body_of(), duplex: 'half'});
      seen[name].push([answer.status, (await answer.json()).code]);
      if ((await (await fetch(url + '/livez')).json()).status === undefined) throw new Error('livez');
    }
    for (const [name, chunked] of [['request', false], ['written', true]]) {
      seen[name].push(await request('POST', '/v1/sessions', chunked));
      const next = await request('GET', '/livez', false);
      if (next[0] !== 200) throw new Error('livez');
    }
  }
  agent.destroy();
  seen.connections = ports.size;
  console.log(JSON.stringify(seen));
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


def python_sees(port):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    link.connect()
    for i in range(2 * ROUNDS):
        body = b" " * BODY if i % 2 == 0 else iter([b" " * 65536] * (BODY // 65536))
        link.request("POST", PATH, body, {"Content-Type": "application/json"},
                     encode_chunked=i % 2 == 1)
        answer = link.getresponse()
        document = json.loads(answer.read())
        assert (answer.status, document["code"]) == (413, "too_large"), (i, answer.status, document)
        kept = link.sock
        assert (kept is not None) == (i % 2 == 0), f"round {i}: kept, or not"
        link.request("GET", "/livez")
        answer = link.getresponse()
        answer.read()
        assert answer.status == 200
        assert kept is None or link.sock is kept, f"the connection was closed in round {i}"
    link.close()


def curl_sees(port, body):
    address = f"http://127.0.0.1:{port}"
    kind = ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    one = ["-s", "-w", "%{http_code} %{num_connects}\\n", "-o", "/dev/null"]
    for framing in ([], ["-H", "Transfer-Encoding: chunked"],
                    ["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]):
        command = ["curl", *one, *kind, *framing, address + PATH, "--next", *one, address + "/livez"]
        lines = subprocess.run(command, input=body, stdout=subprocess.PIPE,
                               check=True, timeout=120).stdout.decode().split("\n")
        assert lines[0].startswith("413 ") and lines[1].startswith("200 "), (framing, lines)
        # Told before it sends, curl keeps the body, and the server cannot know that: it closes.
        if framing == ["-H", "Expect:"]:
            assert lines[1] == "200 0", (framing, lines)


def node_sees(port):
    node = shutil.which("node")
    if node is None:
        return False
    ran = subprocess.run([node, "-e", NODE, str(port), str(BODY), str(ROUNDS)],
                         stdout=subprocess.PIPE, timeout=300, check=True)
    seen = json.loads(ran.stdout)
    for way in ("fetch", "chunks", "request", "written"):
        assert seen[way] == [[413, "too_large"]] * ROUNDS, (way, seen[way])
    assert seen["connections"] <= 1 + ROUNDS, seen["connections"]  # those with chunks end theirs
    return True


def refused_bodies(folder):
    server = Server(folder, "--log", "warning", "--body-bytes-max", str(LIMIT), data="memory:")
    python_sees(server.port)
    curl_sees(server.port, b" " * BODY)
    if not node_sees(server.port):
        print("node is not there")
        sys.exit(77)
    assert server.stop() == 0, server.process.returncode
    print(f"413 reached Python, curl and node, {ROUNDS} times each way")


main(refused_bodies)
