"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const total = data.file.length, SILENCE = -999, ROW = 32, PRINTED = 200;
  const number = (digits) => (value) => value === null ? "" : value === SILENCE ? "−∞" : value.toFixed(digits);
  const word = (words) => (value) => value < 0 ? "" : words[value];
  const label = word(data.labels), status = word(data.statuses), reason = word(data.reasons);

  // Columns: [key, heading, how a value is shown, width, whether it is text].
  const columns = [
    ["file", "recording", (value) => value, "auto", true],
    ["channel", "channel", number(0), "5rem"],
    ["start", "start, s", number(2), "6rem"],
    ["end", "end, s", number(2), "6rem"],
    ["duration", "length, s", number(2), "6rem"],
    ["status", "status", status, "5rem", true],
    ["label", "label", label, "6rem", true],
    ["score", "score", number(3), "5rem"],
    ["truth", "true", label, "6rem", true],
    ["other", data.second || "", word(data.other_labels || []), "8rem", true],
    ["level", "level, dBFS", number(1), "7rem"],
    ["bandwidth", "bandwidth, Hz", number(0), "9rem"],
    ["reason", "reason", reason, "14rem", true],
  ].filter(([key]) => key in data && (key !== "reason" || data.reasons.length > 1));

  let order = Uint32Array.from({ length: total }, (_, row) => row);
  let shown = order, sorted = null, descending = false;
  const lowered = data.file.map((name) => name.toLowerCase());
  const reasons = data.reasons.map((text) => text.toLowerCase());

  // ---- players -------------------------------------------------------------------------------------------
  const audio = $("audio");
  let until = Infinity;
  const source = (row) => {
    const { root, embedded, endings } = data.audio, name = data.file[row];
    if (Object.hasOwn(embedded, name)) return embedded[name];
    const plays = endings.some((ending) => lowered[row].endsWith(ending));
    if (root === null || !plays || /^[a-z][a-z0-9+.-]*:\/\//i.test(name)) return null;
    return (name.startsWith("/") ? "file://" : root) + name.split("/").map(encodeURIComponent).join("/");
  };
  const play = (row) => {
    const whole = !("start" in data) || data.start[row] === null || !data.p;
    const from = whole ? 0 : data.start[row];
    until = whole ? Infinity : data.end[row];
    $("player").hidden = false;
    $("playing").textContent = data.file[row] + (whole ? "" : `, ${from} to ${until} s`) + (data.label[row] < 0 ? "" : `: ${label(data.label[row])}`);
    audio.src = source(row);
    audio.addEventListener("loadedmetadata", () => { audio.currentTime = from; }, { once: true });
    audio.play().catch(() => {});
  };
  audio.addEventListener("error", () => { $("playing").textContent += " – cannot be played: moved, or no format of this browser"; });
  audio.addEventListener("timeupdate", () => { if (audio.currentTime >= until) { audio.pause(); until = Infinity; } });

  // ---- table ---------------------------------------------------------------------------------------------
  const box = $("rows"), table = box.querySelector("table"), body = table.tBodies[0];
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const plays = data.audio.root !== null;
  const head = table.tHead.insertRow();
  if (plays) { const th = element("th", "play", "hear text"); th.scope = "col"; th.style.width = "4rem"; head.append(th); }
  for (const [key, heading, , width, text] of columns) {
    const th = element("th", undefined, text ? "text" : ""), button = element("button", heading);
    th.scope = "col"; th.style.width = width; th.dataset.key = key;
    th.setAttribute("aria-sort", "none");
    button.type = "button";
    button.addEventListener("click", () => sort(key));
    // Browsers repeat the head on each sheet of paper, but not the buttons in it.
    const printed = element("span", heading, "printed");
    printed.setAttribute("aria-hidden", "true");
    th.append(button, printed); head.append(th);
  }
  table.style.minWidth = `${28 + columns.reduce((sum, [, , , width]) => sum + (parseFloat(width) || 0), 0)}rem`;
  const line = (place) => {
    const row = shown[place], tr = document.createElement("tr");
    tr.setAttribute("aria-rowindex", place + 2);
    if (plays) {
      const td = tr.insertCell();
      td.className = "hear";
      if (source(row) !== null) {
        const button = element("button", "▶");
        button.type = "button"; button.dataset.row = row;
        button.setAttribute("aria-label", `Play ${data.file[row]}`);
        button.addEventListener("click", () => play(row));
        td.append(button);
      }
    }
    for (const [key, , show, , text] of columns) {
      const td = tr.insertCell(), value = show(data[key][row]);
      td.textContent = value;
      if (text) { td.className = key === "file" || key === "reason" ? "text long" : "text"; td.title = value; }
      const wrong = key === "truth" && data.truth[row] >= 0 && data.truth[row] !== data.label[row];
      if (wrong || (key === "status" && value === "error")) td.classList.add("bad");
    }
    return tr;
  };
  const gap = (rows) => {
    const tr = document.createElement("tr"), td = tr.insertCell();
    tr.setAttribute("aria-hidden", "true");
    td.className = "gap"; td.colSpan = columns.length + plays; td.style.height = `${rows * ROW}px`;
    return tr;
  };
  let first = -1, last = -1;
  const draw = (all) => {
    const top = Math.max(0, Math.floor(box.scrollTop / ROW) - 10), count = Math.ceil(box.clientHeight / ROW) + 20;
    // An even start keeps the bands of the rows in place.
    const from = all ? 0 : top - top % 2, to = all ? Math.min(shown.length, PRINTED) : Math.min(shown.length, from + count);
    if (from === first && to === last && !all) return;
    [first, last] = [from, to];
    const focused = document.activeElement && document.activeElement.dataset.row;
    const lines = [];
    if (from) lines.push(gap(from), gap(0));
    for (let place = from; place < to; place++) lines.push(line(place));
    if (to < shown.length && !all) lines.push(gap(shown.length - to));
    body.replaceChildren(...lines);
    if (focused !== undefined && focused !== null) {
      const again = body.querySelector(`button[data-row="${focused}"]`);
      if (again) again.focus({ preventScroll: true });
    }
  };
  const redraw = () => { first = -1; draw(); };
  box.addEventListener("scroll", () => requestAnimationFrame(() => draw()));
  window.addEventListener("resize", redraw);

  const sort = (key) => {
    descending = sorted === key ? !descending : key === "score" && sorted === null;
    sorted = key;
    const values = data[key], show = columns.find((column) => column[0] === key)[2];
    const asText = ["status", "label", "truth", "other", "reason"].includes(key);
    let ranks;
    if (key === "file") ranks = lowered;
    else if (asText) ranks = values.map(show);
    else ranks = Float64Array.from(values, (value) => value === null ? NaN : value);
    const way = descending ? -1 : 1, missing = (value) => value !== value || value === "";
    order = Uint32Array.from({ length: total }, (_, row) => row).sort((a, b) => {
      const x = ranks[a], y = ranks[b];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b;
      return (x < y ? -way : x > y ? way : 0) || a - b;
    });
    for (const th of head.cells) if (th.dataset.key)
      th.setAttribute("aria-sort", th.dataset.key === key ? (descending ? "descending" : "ascending") : "none");
    for (const th of head.cells) if (th.dataset.key) {
      const [, heading] = columns.find((column) => column[0] === th.dataset.key);
      th.firstChild.textContent = heading + (th.dataset.key === key ? (descending ? " ↓" : " ↑") : "");
    }
    filter();
  };
  const filter = () => {
    const wanted = $("search").value.toLowerCase(), state = $("by-status").value, kind = $("by-label").value;
    const wrong = $("wrong").checked, differing = $("differing").checked;
    const found = reasons.map((text) => wanted !== "" && text.includes(wanted));
    shown = order.filter((row) =>
      (wanted === "" || lowered[row].includes(wanted) || found[data.reason[row]]) &&
      (state === "" || data.status[row] === +state) && (kind === "" || data.label[row] === +kind) &&
      (!wrong || (data.truth[row] >= 0 && data.label[row] >= 0 && data.truth[row] !== data.label[row])) &&
      (!differing || (data.other[row] > 0 && data.label[row] >= 0 && data.other_labels[data.other[row]] !== label(data.label[row]))));
    table.setAttribute("aria-rowcount", shown.length + 1);
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} rows`;
    box.scrollTop = 0;
    redraw();
  };
  const options = (select, words, used) => words.forEach((text, index) => {
    if (used.has(index)) { const option = element("option", text); option.value = index; select.append(option); }
  });
  options($("by-status"), data.statuses, new Set(data.status));
  options($("by-label"), data.labels, new Set(data.label));
  $("only-wrong").hidden = !("truth" in data);
  $("only-differing").hidden = !("other" in data);
  let waiting;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  for (const id of ["by-status", "by-label", "wrong", "differing"]) $(id).addEventListener("change", filter);

  // ---- timelines -----------------------------------------------------------------------------------------
  const timelines = () => {
    const places = new Map();
    for (let row = 0; row < total; row++) {
      if (!places.has(data.file[row])) places.set(data.file[row], []);
      places.get(data.file[row]).push(row);
    }
    const long = [...places].filter(([, rows]) => rows.length > 1).sort((a, b) => b[1].length - a[1].length);
    const bytes = Uint8Array.from(atob(data.p), (character) => character.charCodeAt(0)), width = data.labels.length;
    const spec = JSON.parse($("timeline-spec").textContent), select = $("timeline-file");
    long.forEach(([name, rows], index) => { const option = element("option", `${name} (${rows.length} rows)`); option.value = index; select.append(option); });
    const channel = (row) => "channel" in data && data.channel[row] !== null ? `channel ${data.channel[row]}` : "";
    const windows = (rows) => rows.flatMap((row) => {
      if (data.start[row] === null) return [];
      const place = { start: data.start[row], end: data.end[row], channel: channel(row) };
      if (data.label[row] < 0) return [{ ...place, label: "not scored", share: 1 }];
      return data.labels.map((name, index) => ({ ...place, label: name, share: bytes[row * width + index] / 255 }));
    });
    // Many windows are drawn on a canvas, where no variable of a style is known.
    const style = () => getComputedStyle(document.documentElement);
    const coloured = (value) => JSON.parse(JSON.stringify(value).replace(/var\((--\w+)\)/g, (_, name) => style().getPropertyValue(name).trim()));
    const show = async () => {
      const [name, rows] = long[select.value || 0], counts = new Map();
      for (const row of rows) { const said = label(data.label[row]) || status(data.status[row]); counts.set(said, (counts.get(said) || 0) + 1); }
      const most = [...counts].sort((a, b) => b[1] - a[1]).map(([said, count]) => `${said} ${count}`).join(", ");
      $("timeline-summary").textContent = `${name}: ${rows.length} rows; ${most}. The stronger the colour, the likelier.`;
      const body = rows.map((row) => {
        const tr = element("tr");
        const th = element("th", `${number(2)(data.start[row])} to ${number(2)(data.end[row])} s ${channel(row)}`);
        th.scope = "row";
        tr.append(th, element("td", status(data.status[row])), element("td", label(data.label[row])), element("td", number(3)(data.score[row])));
        return tr;
      });
      const top = element("tr");
      for (const text of ["window", "status", "label", "score"]) { const th = element("th", text); th.scope = "col"; top.append(th); }
      $("timeline-numbers").replaceChildren(element("caption", `Windows of ${name}`), top, ...body);
      const values = windows(rows);
      const many = values.length > 4000;
      await vegaEmbed("#timeline", { ...(many ? coloured(spec) : spec), datasets: { windows: values } },
        { actions: false, ast: true, renderer: many ? "canvas" : "svg" });
    };
    select.addEventListener("change", show);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    return show();
  };

  // ---- print ---------------------------------------------------------------------------------------------
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("figure details:not([open])")];
    closed.forEach((details) => { details.open = true; });
    draw(true);
    document.querySelector(".print-note").textContent = shown.length > PRINTED ? `The first ${PRINTED} of ${shown.length} rows are printed.` : "";
  });
  window.addEventListener("afterprint", () => { closed.forEach((details) => { details.open = false; }); redraw(); });

  filter();
  const ready = data.p ? timelines() : Promise.resolve();
  ready.then(() => { document.documentElement.dataset.ready = "yes"; });
})();
