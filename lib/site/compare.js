// A results file of the reader's own, beside the published runs: it is read here and goes nowhere.
(() => {
  const box = document.currentScript.closest(".lwl-compare");
  const published = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const [input, zone, answer] = ["input", ".lwl-drop", ".lwl-answer"].map((name) => box.querySelector(name));

  const make = (name, text = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const minus = (text) => text.replace("-", "−");
  /** Four digits, as people write them. */
  const written = (value, form) => {
    if (form === "%") return `${minus((100 * value).toFixed(1))}%`;
    if (form === "count") return minus(Math.round(value).toLocaleString("en-US"));
    return minus(String(Number(value.toPrecision(4))));
  };

  /** Rows [name, yours, ours, verdict], those outside first; what is told above them. */
  const compare = (run) => {
    const facts = run && run.provenance;
    if (!facts || !facts.chapter || typeof run.numbers !== "object") {
      throw new Error("This is no results file of a chapter. A run says where it wrote one: a .json beside an .npz.");
    }
    const ours = published[facts.chapter];
    if (!ours) throw new Error(`No runs of ${facts.chapter} are published in the new form: nothing to compare with.`);
    const differ = Object.keys(ours.parameters)
      .filter((name) => JSON.stringify(facts.parameters[name]) !== JSON.stringify(ours.parameters[name]))
      .map((name) => `${name} = ${JSON.stringify(facts.parameters[name])}, ours ${JSON.stringify(ours.parameters[name])}`);
    const order = ["outside", "inside", "one run only", "not measured"];
    const rows = Object.entries(ours.numbers).map(([name, { text, unit, form, limits }]) => {
      const found = run.numbers[name];
      if (!found) return [name, "", `${text} ${unit}`.trim(), "not measured"];
      const verdict = !limits ? "one run only" : limits[0] <= found.value && found.value <= limits[1] ? "inside" : "outside";
      return [name, written(found.value, form), `${text} ${unit}`.trim(), verdict];
    });
    rows.sort((a, b) => order.indexOf(a[3]) - order.indexOf(b[3]));
    const count = (verdict) => rows.filter((row) => row[3] === verdict).length;
    const judged = count("inside") + count("outside");
    const told = [`${facts.chapter}: ${count("inside")} of ${judged} numbers lie where another run of ours would be expected; of a run with another seed about 95% would.`];
    if (differ.length) told.push(`Your run is another experiment (${differ.join("; ")}), so "outside" need not mean wrong.`);
    return { told, rows };
  };

  const show = (text) => {
    answer.replaceChildren();
    let found;
    try {
      let run;
      try {
        run = JSON.parse(text);
      } catch {
        throw new Error("This file cannot be read as JSON. Choose the .json file of a run, not its .npz or notebook.");
      }
      found = compare(run);
    } catch (error) {
      answer.append(make("p", error.message));
      return;
    }
    const table = make("table", "", { class: "table" });
    const head = make("tr");
    for (const title of ["number", "yours", "ours", ""]) head.append(make("th", title, { scope: "col" }));
    table.append(make("thead"), make("tbody"));
    table.tHead.append(head);
    for (const row of found.rows) {
      const line = make("tr");
      for (const cell of row) line.append(make("td", cell));
      table.tBodies[0].append(line);
    }
    const frame = make("div", "", { class: "lwl-scroll", tabindex: "0", role: "region", "aria-label": "Your run against ours" });
    frame.append(table);
    answer.append(...found.told.map((line) => make("p", line)), frame);
  };

  const take = async (files) => files.length && show(await files[0].text());
  input.addEventListener("change", () => take(input.files));
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => (event.preventDefault(), zone.classList.add("lwl-over")));
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("lwl-over"));
  zone.addEventListener("drop", (event) => (event.preventDefault(), take(event.dataTransfer.files)));
  box.hidden = false;
})();
