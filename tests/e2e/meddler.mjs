// A Worker that stands between the gateway and its accounts' ledgers: it counts what is asked, and loses, doubles, delays
// or refuses some of it. Behind it are the real objects.
//
//   const gateway = await startGateway({ ...meddled(), … });
//   await meddle(gateway, { faults: [{ path: "/admit", fault: "hang" }] });
//   const { "/admit": asked } = await meddle(gateway, { faults: [] });

const SCRIPT = `
let faults = [];
let counts = {};

function forward(stub, request, body) {
  return stub.fetch(request.url, { method: request.method, body });
}

export class Meddler {
  constructor(state, env) {
    Object.assign(this, { state, env });
  }

  async fetch(request) {
    const { pathname } = new URL(request.url);
    counts[pathname] = (counts[pathname] ?? 0) + 1;
    const body = request.method === "GET" ? undefined : await request.text();
    // The real ledger goes by this one's id: what is asked for an account always comes to the same one.
    const stub = this.env.REAL.get(this.env.REAL.idFromName(this.state.id.toString()));
    const hit = faults.find(({ path, share = 1 }) => path === pathname && Math.random() < share);
    switch (hit?.fault) {
      case "hang":
        await scheduler.wait(20_000);
        return new Response("too late", { status: 500 });
      case "refuse":
        return new Response("provoked by a test", { status: 500 });
      case "lose the answer":
        await forward(stub, request, body);
        return new Response("provoked by a test", { status: 500 });
      case "double":
        await forward(stub, request, body);
        return forward(stub, request, body);
      case "delay":
        await scheduler.wait(Math.random() * hit.ms);
        return forward(stub, request, body);
      default:
        return forward(stub, request, body);
    }
  }
}

export default {
  async fetch(request) {
    const told = counts;
    counts = {};
    faults = (await request.json()).faults;
    return Response.json(told);
  },
};
`;

/** What the harness starts such a gateway with. */
export const meddled = () => ({
  override: {
    durableObjects: {
      LEDGER: { className: "Meddler", scriptName: "meddler" },
      REAL_LEDGER: { className: "AccountLedger", useSQLite: true },
      GAUGE: { className: "ProviderGauge", useSQLite: true },
      HUB: { className: "Hub", useSQLite: true },
    },
  },
  others: [
    {
      name: "meddler",
      modules: true,
      script: SCRIPT,
      compatibilityDate: "2026-07-30",
      durableObjects: {
        MEDDLER: { className: "Meddler" },
        REAL: { className: "AccountLedger", scriptName: "llm-gateway", useSQLite: true },
      },
    },
  ],
});

/**
 * Says what is to go wrong from now on, and tells how often each path was asked for since this was called last.
 *
 * @param {{faults: {path: string, fault: string, share?: number, ms?: number}[]}} wanted `share` is the part of the calls
 *   that are hit, 0 to 1
 */
export async function meddle(gateway, wanted) {
  const worker = await gateway.worker("meddler");
  const reply = await worker.fetch("http://meddler/", { method: "POST", body: JSON.stringify(wanted) });
  return reply.json();
}
