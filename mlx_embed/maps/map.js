// A map of points: WebGL draws them, a grid finds the one that is pointed at, and all else is HTML.
(async () => {
  const get = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const cells = (text) => new Uint16Array(bytes(text).buffer);
  const stream = new Blob([bytes(get("data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();
  get("data").remove();
  const places = Float32Array.from(cells(data.places), (v) => v / 65535);
  const count = places.length / 2;
  for (const column of data.columns) column.cells = cells(column.cells);
  const canvas = get("map");
  const colours = new Uint8Array(4 * count);

  // What is shown: the place in the middle, and pixels of the screen a unit of the map.
  const view = { x: 0.5, y: 0.5, scale: 1 };
  const state = { column: 0, only: null, matches: null };
  const whole = () => 0.86 * Math.min(innerWidth, innerHeight);
  const screenX = (x) => (x - view.x) * view.scale + innerWidth / 2;
  const screenY = (y) => (view.y - y) * view.scale + innerHeight / 2;
  const mapX = (px) => (px - innerWidth / 2) / view.scale + view.x;
  const mapY = (py) => view.y - (py - innerHeight / 2) / view.scale;
  // Points grow as they part, and are small where there are many.
  const size = () => Math.max(2, Math.min(14, (110 / Math.sqrt(count)) * Math.sqrt(view.scale / whole()) + 1.5));

  // A grid of points, which finds those near a place.
  const GRID = 256;
  const bucket = (v) => Math.min(GRID - 1, Math.max(0, Math.floor(v * GRID)));
  const starts = new Uint32Array(GRID * GRID + 1);
  const sorted = new Uint32Array(count);
  for (let i = 0; i < count; i++) starts[bucket(places[2 * i]) * GRID + bucket(places[2 * i + 1]) + 1]++;
  for (let i = 0; i < GRID * GRID; i++) starts[i + 1] += starts[i];
  const next = starts.slice();
  for (let i = 0; i < count; i++) sorted[next[bucket(places[2 * i]) * GRID + bucket(places[2 * i + 1])]++] = i;
  const nearest = (px, py, pixels) => {
    const x = mapX(px), y = mapY(py), reach = pixels / view.scale;
    let best = -1, least = reach * reach;
    for (let a = bucket(x - reach); a <= bucket(x + reach); a++) {
      for (let b = bucket(y - reach); b <= bucket(y + reach); b++) {
        for (let k = starts[a * GRID + b]; k < starts[a * GRID + b + 1]; k++) {
          const i = sorted[k], dx = places[2 * i] - x, dy = places[2 * i + 1] - y;
          if (dx * dx + dy * dy < least && colours[4 * i + 3] > 100) (best = i), (least = dx * dx + dy * dy);
        }
      }
    }
    return best;
  };

  // Drawing: by WebGL, or where that is not there by the plain canvas.
  const gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true, alpha: true });
  const plain = gl ? null : canvas.getContext("2d");
  let uniforms;
  if (gl) {
    const shader = (kind, text) => {
      const made = gl.createShader(kind);
      gl.shaderSource(made, text);
      gl.compileShader(made);
      return made;
    };
    const program = gl.createProgram();
    gl.attachShader(program, shader(gl.VERTEX_SHADER, `
      attribute vec2 place; attribute vec4 colour; uniform vec2 middle, scale; uniform float size; varying vec4 c;
      void main() { c = colour; gl_Position = vec4((place - middle) * scale, 0.0, 1.0); gl_PointSize = size; }`));
    gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
      precision mediump float; varying vec4 c;
      void main() {
        float d = length(gl_PointCoord - 0.5);
        float a = c.a * (1.0 - smoothstep(0.38, 0.5, d));
        gl_FragColor = vec4(c.rgb * a, a);
      }`));
    gl.linkProgram(program);
    gl.useProgram(program);
    const attribute = (name, width, kind, values) => {
      const buffer = gl.createBuffer(), where = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
      gl.enableVertexAttribArray(where);
      gl.vertexAttribPointer(where, width, kind, kind !== gl.FLOAT, 0, 0);
      return buffer;
    };
    attribute("place", 2, gl.FLOAT, places);
    uniforms = Object.fromEntries(["middle", "scale", "size"].map((name) => [name, gl.getUniformLocation(program, name)]));
    uniforms.buffer = attribute("colour", 4, gl.UNSIGNED_BYTE, colours);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }
  const draw = () => {
    const ratio = devicePixelRatio || 1;
    const width = Math.round(innerWidth * ratio), height = Math.round(innerHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) (canvas.width = width), (canvas.height = height);
    if (gl) {
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(uniforms.middle, view.x, view.y);
      gl.uniform2f(uniforms.scale, (2 * view.scale) / innerWidth, (2 * view.scale) / innerHeight);
      gl.uniform1f(uniforms.size, size() * ratio);
      gl.drawArrays(gl.POINTS, 0, count);
    } else {
      plain.setTransform(ratio, 0, 0, ratio, 0, 0);
      plain.clearRect(0, 0, innerWidth, innerHeight);
      const side = size();
      for (let i = 0; i < count; i++) {
        plain.fillStyle = `rgba(${colours[4 * i]},${colours[4 * i + 1]},${colours[4 * i + 2]},${colours[4 * i + 3] / 255})`;
        plain.fillRect(screenX(places[2 * i]) - side / 2, screenY(places[2 * i + 1]) - side / 2, side, side);
      }
    }
    placeLabels();
  };
  let asked = false;
  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => ((asked = false), draw()));
  };

  // The clusters' words, the largest cluster's first, where there is room for them.
  const labels = data.labels.map((label) => {
    const made = get("labels").appendChild(document.createElement("div"));
    made.textContent = label.name.split(", ").slice(0, 2).join(", ");
    return { ...label, made, width: 0 };
  });
  const placeLabels = () => {
    const taken = [];
    for (const label of labels) {
      label.width = label.width || label.made.offsetWidth;
      const x = screenX(label.x), y = screenY(label.y), half = label.width / 2 + 6;
      const box = [x - half, y - 12, x + half, y + 12];
      const free = state.column === 0 && state.only === null && !state.matches && box[0] > 0 && box[2] < innerWidth &&
        box[1] > 0 && box[3] < innerHeight && !taken.some((o) => box[0] < o[2] && box[2] > o[0] && box[1] < o[3] && box[3] > o[1]);
      label.made.style.visibility = free ? "visible" : "hidden";
      if (!free) continue;
      taken.push(box);
      label.made.style.left = `${x}px`;
      label.made.style.top = `${y}px`;
    }
  };

  // Colours: of the page's own palette, then the same again, lighter and darker; a rest is grey.
  const OWN = 16;
  const probe = document.createElement("span");
  document.body.append(probe);
  const rgb = (text) => {
    probe.style.color = text;
    return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map((v) => Math.round(Number(v)));
  };
  let palette, rest, ramp;
  const readPalette = () => {
    const base = [2, 3, 4, 5, 6, 7, 8].map((n) => rgb(`var(--c${n})`));
    const ink = rgb("var(--ink)");
    rest = rgb("var(--c1)");
    const mixed = base.map((c) => c.map((v, k) => Math.round(0.55 * v + 0.45 * ink[k])));
    palette = [...base, ...mixed, ...base.map((c) => c.map((v) => Math.round(0.6 * v + 0.4 * 128)))].slice(0, OWN);
    ramp = [rgb("var(--c2)"), rgb("var(--c6)"), rgb("var(--c3)")];
  };
  const onRamp = (share) => {
    const at = Math.min(1.999, 2 * share), low = ramp[Math.floor(at)], high = ramp[Math.floor(at) + 1];
    return low.map((v, k) => Math.round(v + (high[k] - v) * (at % 1)));
  };
  const isRest = (column, cell) => column.name === "cluster" && column.values[cell] === "between clusters";
  const colourOf = (column, cell) => {
    if (!column.values) return cell === 65535 ? rest : onRamp(cell / 65534);
    return cell < OWN && !isRest(column, cell) ? palette[cell] : rest;
  };
  const paint = () => {
    const column = data.columns[state.column];
    const known = new Map();
    const opaque = count > 20000 ? 190 : 225;
    for (let i = 0; i < count; i++) {
      const cell = column.cells[i];
      let c = known.get(cell);
      if (!c) known.set(cell, (c = colourOf(column, cell)));
      const on = (!state.matches || state.matches[i]) && (state.only === null || cell === state.only);
      colours[4 * i] = c[0];
      colours[4 * i + 1] = c[1];
      colours[4 * i + 2] = c[2];
      colours[4 * i + 3] = on ? (state.matches || state.only !== null ? 255 : opaque) : 14;
    }
    if (gl) {
      gl.bindBuffer(gl.ARRAY_BUFFER, uniforms.buffer);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, colours);
    }
    redraw();
  };
  const legend = () => {
    const list = get("legend"), column = data.columns[state.column];
    list.replaceChildren();
    const css = (c) => `rgb(${c.join(",")})`;
    if (!column.values) {
      const line = list.appendChild(document.createElement("li"));
      const bar = line.appendChild(document.createElement("div"));
      bar.className = "ramp";
      bar.style.background = `linear-gradient(90deg, ${ramp.map(css).join(",")})`;
      const ends = line.appendChild(document.createElement("div"));
      ends.className = "ends soft";
      for (const end of [column.low, column.high]) ends.appendChild(document.createElement("span")).textContent = end.toLocaleString();
      return;
    }
    column.values.slice(0, OWN).forEach((value, cell) => {
      const button = list.appendChild(document.createElement("li")).appendChild(document.createElement("button"));
      button.setAttribute("aria-pressed", String(state.only === cell));
      button.appendChild(document.createElement("i")).style.background = css(colourOf(column, cell));
      button.appendChild(document.createElement("span")).textContent = value;
      button.appendChild(document.createElement("b")).textContent = column.sizes[cell].toLocaleString();
      button.onclick = () => {
        state.only = state.only === cell ? null : cell;
        paint();
        legend();
      };
    });
    const others = column.values.length - OWN;
    if (others > 0) list.appendChild(document.createElement("li")).textContent = `and ${others.toLocaleString()} others, in grey`;
  };

  // Search: all of the words, anywhere in a text or its id.
  let lower = null;
  const search = () => {
    const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = [];
    let total = 0;
    if (words.length) {
      lower = lower || data.texts.map((text, i) => `${text} ${data.ids[i]}`.toLowerCase());
      state.matches = new Uint8Array(count);
      for (let i = 0; i < count; i++) {
        if (!words.every((word) => lower[i].includes(word))) continue;
        state.matches[i] = 1;
        total++;
        if (hits.length < 30) hits.push(i);
      }
    } else state.matches = null;
    get("found").textContent = words.length ? `${total.toLocaleString()} of ${count.toLocaleString()} texts` : "";
    get("hits").replaceChildren(...hits.map((i) => {
      const line = document.createElement("li"), button = line.appendChild(document.createElement("button"));
      button.textContent = data.texts[i].slice(0, 110);
      button.onclick = () => {
        view.x = places[2 * i];
        view.y = places[2 * i + 1];
        view.scale = Math.max(view.scale, 6 * whole());
        redraw();
        tell(i, innerWidth / 2, innerHeight / 2);
      };
      return line;
    }));
    paint();
  };
  let waiting;
  get("search").oninput = () => (clearTimeout(waiting), (waiting = setTimeout(search, 120)));
  get("colour").onchange = (event) => {
    state.column = Number(event.target.value);
    state.only = null;
    paint();
    legend();
  };

  // What is pointed at.
  const tip = get("tip");
  const tell = (i, px, py) => {
    tip.hidden = i < 0;
    if (i < 0) return;
    const about = data.columns.map((column) => {
      const cell = column.cells[i];
      const value = column.values ? column.values[cell] ?? "" : cell === 65535 ? "none" :
        (column.low + (cell / 65534) * (column.high - column.low)).toLocaleString();
      return `${column.name}: ${value}`;
    });
    const line = (text, kind) => {
      const made = document.createElement("div");
      made.textContent = text;
      made.className = kind;
      return made;
    };
    tip.replaceChildren(line(data.texts[i], ""), line([data.ids[i], ...about].join(" · "), "soft"));
    const left = Math.min(px + 14, innerWidth - tip.offsetWidth - 8);
    const top = py + 14 + tip.offsetHeight > innerHeight ? py - tip.offsetHeight - 10 : py + 14;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  };

  // Moving: a wheel, one pointer, two of them, keys, buttons.
  const zoom = (factor, px = innerWidth / 2, py = innerHeight / 2) => {
    const x = mapX(px), y = mapY(py);
    view.scale = Math.min(4000 * whole(), Math.max(0.4 * whole(), view.scale * factor));
    view.x = x - (px - innerWidth / 2) / view.scale;
    view.y = y + (py - innerHeight / 2) / view.scale;
    tip.hidden = true;
    redraw();
  };
  const pan = (dx, dy) => {
    view.x -= dx / view.scale;
    view.y += dy / view.scale;
    redraw();
  };
  const all = () => {
    // In the room that the panel leaves: to its right, or below it on a phone.
    const panel = get("panel"), folded = panel.classList.contains("folded");
    const left = !folded && innerWidth > 760 ? panel.offsetLeft + panel.offsetWidth : 0;
    const top = !folded && innerWidth <= 760 ? panel.offsetTop + panel.offsetHeight : 0;
    view.scale = 0.92 * Math.min(innerWidth - left, innerHeight - top);
    view.x = 0.5 - left / 2 / view.scale;
    view.y = 0.5 + top / 2 / view.scale;
    redraw();
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event.clientX, event.clientY);
  }, { passive: false });
  const down = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("moving");
    tip.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return tell(nearest(event.clientX, event.clientY, Math.max(7, size())), event.clientX, event.clientY);
    const other = [...down.entries()].find(([id]) => id !== event.pointerId);
    if (other) {
      const far = (p) => Math.hypot(p.clientX - other[1].clientX, p.clientY - other[1].clientY) || 1;
      zoom(far(event) / far(before), other[1].clientX, other[1].clientY);
    } else pan(event.clientX - before.clientX, event.clientY - before.clientY);
    down.set(event.pointerId, event);
  });
  const up = (event) => {
    const before = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (!down.size) canvas.classList.remove("moving");
    // A tap, where there is nothing to hover with.
    if (before && event.type === "pointerup") tell(nearest(event.clientX, event.clientY, 16), event.clientX, event.clientY);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  canvas.addEventListener("keydown", (event) => {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") all();
    else return;
    event.preventDefault();
  });
  get("in").onclick = () => zoom(1.6);
  get("out").onclick = () => zoom(1 / 1.6);
  get("all").onclick = all;
  get("fold").onclick = () => {
    const folded = get("panel").classList.toggle("folded");
    get("fold").setAttribute("aria-expanded", String(!folded));
    all();
  };
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (readPalette(), paint(), legend()));
  readPalette();
  paint();
  legend();
  all();
  document.body.dataset.points = count;
})();
