// Watches the server by its own /metrics, and ranks pasted texts by a query.
(() => {
  const get = (id) => document.getElementById(id);
  const EVERY = 2000, KEPT = 60, WINDOW = 30;
  // What only asks how the server is, as this page does itself, is no work.
  const QUIET = /method="\/(metrics|health|info|openapi\.json|v1\/models[^"]*)"/;
  const headers = () => (get("key").value ? { authorization: `Bearer ${get("key").value}` } : {});
  const ask = async (path, body) => {
    const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
    const answer = await fetch(path, { ...options, headers: { ...headers(), ...(body ? { "content-type": "application/json" } : {}) } });
    if (answer.status === 401) get("keys").hidden = false;
    if (!answer.ok) {
      const text = await answer.text();
      let said = text;
      try {
        const found = JSON.parse(text);
        said = found.error?.message ?? found.message ?? found.error ?? text;
      } catch { /* it is no JSON, and is shown as it is */ }
      throw Object.assign(new Error(said || `status ${answer.status}`), { status: answer.status });
    }
    return answer;
  };
  const state = (good, text) => {
    get("state").className = `verdict ${good ? "good" : "bad"}`;
    get("state").textContent = text;
  };

  // Prometheus's text: sums of the series of a name, and the buckets of the durations.
  const read = (text) => {
    const sums = {}, buckets = {};
    for (const line of text.split("\n")) {
      const match = /^([a-z_]+)(\{[^}]*\})? ([-+.eE\d]+|NaN|\+Inf)$/.exec(line);
      if (!match) continue;
      const [, name, labels = "", value] = match;
      if (name.startsWith("te_request_") && QUIET.test(labels)) continue;
      const edge = /le="([^"]+)"/.exec(labels);
      if (name === "te_request_duration_bucket") {
        buckets[edge[1] === "+Inf" ? "Infinity" : edge[1]] = (buckets[edge[1] === "+Inf" ? "Infinity" : edge[1]] ?? 0) + Number(value);
      } else sums[name] = (sums[name] ?? 0) + Number(value);
    }
    return { time: performance.now() / 1000, sums, buckets };
  };
  // Within a bucket requests are taken to lie evenly.
  const percentile = (buckets, share) => {
    const edges = Object.keys(buckets).map(Number).sort((a, b) => a - b);
    const total = buckets.Infinity ?? 0;
    let low = 0, below = 0;
    for (const edge of edges) {
      const upTo = buckets[String(edge)];
      if (upTo >= share * total && total > 0) {
        if (edge === Infinity) return `over ${spelled(low)}`;
        return spelled(low + ((edge - low) * (share * total - below)) / Math.max(upTo - below, 1e-9));
      }
      low = edge;
      below = upTo;
    }
    return "–";
  };
  const spelled = (s) => (s >= 1 ? `${s.toFixed(1)} s` : s >= 0.01 ? `${Math.round(1000 * s)} ms` : `${(1000 * s).toFixed(1)} ms`);
  const short = (v) => (v >= 100 ? Math.round(v).toLocaleString() : v >= 10 ? v.toFixed(1) : v.toFixed(v % 1 ? 2 : 0));
  const seen = [], lines = { requests: [], texts: [], tokens: [], queue: [] };
  const show = (now) => {
    seen.push(now);
    if (seen.length > KEPT) seen.shift();
    const last = seen[seen.length - 2], old = seen[Math.max(0, seen.length - 1 - WINDOW)];
    const since = (name, then) => (now.sums[name] ?? 0) - (then.sums[name] ?? 0);
    const rates = { queue: now.sums.te_queue_size ?? 0 };
    if (last) {
      const seconds = now.time - last.time;
      rates.requests = since("te_request_success", last) / seconds;
      rates.texts = since("te_request_input_length_count", last) / seconds;
      rates.tokens = since("mlx_embed_tokens", last) / seconds;
      const buckets = Object.fromEntries(Object.entries(now.buckets).map(([k, v]) => [k, v - (old.buckets[k] ?? 0)]));
      for (const [id, share] of [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]]) get(id).textContent = percentile(buckets, share);
      get("count").textContent = since("te_request_success", old).toLocaleString();
      get("failed").textContent = since("te_request_failure", old).toLocaleString();
    }
    for (const [name, value] of Object.entries(rates)) {
      get(name).textContent = short(value);
      const line = lines[name];
      line.push(value);
      if (line.length > KEPT) line.shift();
      const most = Math.max(...line, 1e-9);
      const points = line.map((v, i) => `${((i + KEPT - line.length) * 120) / (KEPT - 1)},${34 - (32 * v) / most}`);
      document.querySelector(`svg[data-of=${name}] polyline`).setAttribute("points", points.join(" "));
    }
  };

  let known = "";
  const models = async () => {
    const ids = (await (await ask("/v1/models")).json()).data.map((model) => model.id);
    if (ids.join() !== known) {
      get("model").replaceChildren(...ids.map((id) => new Option(id, id)));
      known = ids.join();
    }
    return ids;
  };
  const look = async () => {
    try {
      show(read(await (await ask("/metrics")).text()));
      const ids = await models();
      state(true, `Serving ${ids.join(", ")}.`);
    } catch (error) {
      state(false, error instanceof TypeError ? "The server cannot be reached." : error.message);
    }
    setTimeout(look, EVERY);
  };

  // With the prompts that the model has for queries and for documents; a reranker is asked for its own scores.
  const embedded = async (model, input, type) =>
    (await (await ask("/v1/embeddings", { model, input, input_type: type })).json()).data.map((entry) => entry.embedding);
  const cosine = (a, b) => {
    let dot = 0, aa = 0, bb = 0;
    for (let i = 0; i < a.length; i++) (dot += a[i] * b[i]), (aa += a[i] * a[i]), (bb += b[i] * b[i]);
    return dot / Math.sqrt(aa * bb || 1);
  };
  const scores = async (model, query, texts) => {
    try {
      const [[asked], vectors] = await Promise.all([embedded(model, [query], "query"), embedded(model, texts, "document")]);
      return ["cosine", vectors.map((vector) => cosine(asked, vector))];
    } catch (error) {
      if (error.status !== 404) throw error; // no embedding model has this name, so a reranker has
      const found = (await (await ask("/v2/rerank", { model, query, documents: texts })).json()).results;
      const out = new Array(texts.length).fill(0);
      for (const entry of found) out[entry.index] = entry.relevance_score;
      return ["relevance", out];
    }
  };
  get("try").onsubmit = async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    const texts = get("given").value.split("\n").map((line) => line.trim()).filter(Boolean);
    button.disabled = true;
    try {
      if (!texts.length || !get("query").value.trim()) throw new Error("It needs a query, and one text at least.");
      const began = performance.now();
      const [kind, found] = await scores(get("model").value, get("query").value, texts);
      get("took").textContent = `${texts.length} texts by ${kind} in ${Math.round(performance.now() - began)} ms`;
      const order = found.map((_, i) => i).sort((a, b) => found[b] - found[a]);
      get("ranked").replaceChildren(...order.map((i) => {
        const line = document.createElement("li"), meter = document.createElement("meter"), score = document.createElement("span");
        score.textContent = found[i].toFixed(4);
        meter.value = Math.max(0, found[i]);
        meter.setAttribute("aria-label", `${kind} ${found[i].toFixed(4)}`);
        line.append(score, texts[i], meter);
        return line;
      }));
    } catch (error) {
      get("took").textContent = error.message;
      get("ranked").replaceChildren();
    }
    button.disabled = false;
  };
  get("keys").onsubmit = (event) => event.preventDefault();
  look();
})();
