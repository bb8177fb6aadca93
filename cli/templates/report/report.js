"use strict";
(() => {
  const PAGE = 100;
  const ORDER = ["mismatch", "conflict", "unverifiable", "failed", "verified", "exempt", "gone"];
  const NOBODY = "(unknown)", NOTHING = "(nothing)";
  const get = (id) => document.getElementById(id);
  // What a stranger wrote may turn the direction of writing, or hide: it is shown escaped.
  const plain = (text) => String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u{e0000}-\u{e007f}]/gu,
    (letter) => "\\u{" + letter.codePointAt(0).toString(16) + "}");
  const element = (name, attributes, ...content) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...content);
    return made;
  };

  const sold = (codes) => codes.length ? "product code " + codes.join(", ") : "no product code";
  // In the same words as the page's own matrix, whose cells filter by them.
  const expectedText = ({ platform, product_codes }) =>
    [platform.join(" or "), product_codes && sold(product_codes)].filter(Boolean).join(", ");

  const rows = JSON.parse(get("rows").textContent);
  for (const row of rows) {
    row.label = row.kind ? row.verdict + "/" + row.kind : row.verdict;
    row.bills = row.actual ? row.actual.platform_details || NOTHING : "";
    row.sold = row.actual && (row.actual.product_codes || []).length ? ", " + sold(row.actual.product_codes) : "";
    row.should = row.expected ? expectedText(row.expected) : row.actual ? NOBODY : "";
    row.at = (row.registered_at || "").slice(0, 10);
    row.rank = ORDER.includes(row.verdict) ? ORDER.indexOf(row.verdict) : -1;
    row.text = [row.image_id, row.name, row.snapshot_id, row.reason].join("\n").toLowerCase();
  }

  const form = get("filter"), table = get("amis"), body = table.tBodies[0];
  const FILTERS = ["q", "verdict", "bills", "should", "region", "from", "to"];
  let found = rows, page = 0, by = "verdict", down = false, looked = false;

  const fill = (name, values) => {
    const select = form.elements[name];
    for (const value of [...new Set(values)].filter(Boolean).sort()) {
      select.append(element("option", { value }, plain(value)));
    }
  };
  fill("verdict", rows.flatMap((row) => [row.verdict, row.label]));
  fill("bills", rows.map((row) => row.bills));
  fill("should", rows.map((row) => row.should));
  fill("region", rows.map((row) => row.region));

  const matches = (row, f) =>
    (!f.q || row.text.includes(f.q.toLowerCase())) &&
    (!f.verdict || row.verdict === f.verdict || row.label === f.verdict) &&
    (!f.bills || row.bills === f.bills) && (!f.should || row.should === f.should) &&
    (!f.region || row.region === f.region) &&
    (!f.from || row.at.slice(0, 7) >= f.from) && (!f.to || (row.at && row.at.slice(0, 7) <= f.to));
  const KEYS = {
    name: (row) => row.name || row.image_id, verdict: (row) => row.rank, bills: (row) => row.bills,
    should: (row) => row.should, region: (row) => row.region || "", at: (row) => row.at,
  };
  const compared = (one, other) => (one < other ? -1 : one > other ? 1 : 0);

  const look = () => {
    const f = Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value]));
    const key = KEYS[by];
    found = rows.filter((row) => matches(row, f));
    // Of those that are alike, the newest comes first.
    found.sort((a, b) => (down ? -1 : 1) * compared(key(a), key(b)) || compared(b.at, a.at) || compared(a.image_id, b.image_id));
    show();
    looked = true;
  };

  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(line));
    get("hits").textContent = found.length === rows.length ? `${rows.length} AMIs` : `${found.length} of ${rows.length} AMIs`;
    get("pages").hidden = pages === 1;
    get("page").textContent = `page ${page + 1} of ${pages}`;
    get("back").disabled = page === 0;
    get("next").disabled = page === pages - 1;
    for (const head of table.tHead.rows[0].cells) {
      const own = head.firstElementChild.dataset.by === by;
      if (own) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  const tone = (verdict) => "v-" + (ORDER.includes(verdict) ? verdict : "other");
  const line = (row) => {
    const open = element("button", { type: "button", class: "open-row", "aria-expanded": "false" },
      plain(row.name || "(no name)"), element("span", { class: "id" }, plain(row.image_id)));
    const cell = (text, name) => element("td", name ? { class: name } : {}, plain(text));
    const made = element("tr", { class: "row" }, element("td", {}, open),
      element("td", { class: tone(row.verdict) }, element("span", { class: "mark" }, plain(row.label))),
      cell(row.bills + row.sold, "roomy"), cell(row.should, "roomy"), cell(row.region, "roomier"), cell(row.at, "roomier"));
    open.addEventListener("click", () => {
      const opened = open.getAttribute("aria-expanded") === "true";
      open.setAttribute("aria-expanded", String(!opened));
      if (opened) made.nextElementSibling.remove();
      else made.after(element("tr", { class: "more" }, element("td", { colspan: table.tHead.rows[0].cells.length }, evidence(row))));
    });
    return made;
  };

  const evidence = (row) => {
    const list = element("dl");
    const add = (what, ...content) => list.append(element("dt", {}, what), element("dd", {}, ...content));
    add("Why", plain(row.reason));
    if (row.actual) {
      const operation = row.actual.usage_operation;
      add("Billed as", plain(row.bills) + (operation ? ` (${plain(operation)})` : "") + plain(row.sold));
    }
    add("Expected", plain(row.should) + (row.expected ? `, source ${plain(row.expected.source)}` : ""));
    const named = (it) => it.says.length ? it.says.join(" or ") : it.product_codes ? sold(it.product_codes) : "";
    const decisive = row.expected && row.evidence.find((it) => it.source === row.expected.source && named(it)
      && (it.says.length > 0) === (row.expected.platform.length > 0));
    if (row.evidence.length) add("Evidence", element("ul", {}, ...row.evidence.map((it) => element("li", {},
      element("span", { class: "source" }, plain(it.source)), " ",
      plain(named(it) || it.state.replace("-", " ")),
      it === decisive ? element("span", { class: "decides" }, " decides") : "",
      element("small", {}, " " + plain(it.detail))))));
    if (row.held_by.length) add("A discard", plain("is held by " + row.held_by.join(", ")));
    if (row.outcome) add("The guard", plain(`${row.action}: ${row.outcome}`));
    if (row.error) add("Unknown", plain(row.error));
    const reserved = row.reserved_instances || [];
    if (reserved.length) add("Reserved", element("ul", {}, ...reserved.map((it) => element("li", {},
      plain(`${it.count} × ${it.instance_type} for ${it.platform} (${it.id}) do not apply, but would if it was billed as expected`)))));
    const facts = [row.region, row.at && "registered " + row.at, row.snapshot_id].filter(Boolean).join(", ");
    add("AMI", element("span", { class: "id" }, plain(row.image_id)), " " + plain(facts));
    if (row.fix.length) add("How to fix it", element("ul", {}, ...row.fix.map(step)));
    return list;
  };

  const step = (text) => {
    const at = text.indexOf("aws ec2 ");
    const made = element("li", { class: "step" }, at < 0 ? element("span", {}, plain(text)) : element("pre", {}, plain(text)));
    if (at >= 0) {
      const copy = element("button", { type: "button" }, "Copy");
      copy.addEventListener("click", async () => {
        copy.textContent = (await copied(text.slice(at))) ? "Copied" : "Not copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      made.append(copy);
    }
    return made;
  };
  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* A page from a file may have no clipboard. */ }
    const area = element("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };

  // The filter is in the page's address, so that a link to it can be sent.
  let own = "";
  const keep = () => {
    const kept = new URLSearchParams();
    for (const name of FILTERS) if (form.elements[name].value) kept.set(name, form.elements[name].value);
    if (by !== "verdict" || down) kept.set("sort", (down ? "-" : "") + by);
    own = kept.toString();
    history.replaceState(null, "", own ? "#" + own : location.pathname + location.search);
  };
  // What a fragment says of the list: filters and an order, each only if the page could have written it.
  const said = (text) => {
    const kept = new URLSearchParams(text), filters = {};
    for (const name of FILTERS) {
      const control = form.elements[name], value = kept.get(name) || "";
      const known = control.options ? [...control.options].some((option) => option.value === value)
        : name === "q" || /^\d{4}-\d{2}$/.test(value);
      if (value && known) filters[name] = value;
    }
    const sort = kept.get("sort") || "", key = sort.replace("-", "");
    return { filters, sort: Object.hasOwn(KEYS, key) ? { key, down: sort.startsWith("-") } : null };
  };
  const recall = () => {
    const text = location.hash.slice(1);
    // The skip link leads to the list as it is. There is none yet when the page opens at it.
    if (text === "list" && looked) return get("list").focus();
    const { filters, sort } = said(text);
    for (const name of FILTERS) form.elements[name].value = filters[name] || "";
    ({ key: by, down } = sort || { key: "verdict", down: false });
    page = 0;
    look();
    const isOfTheList = sort || Object.keys(filters).length;
    if (text === "list") get("list").focus();
    else if (isOfTheList && text !== own) get("list").scrollIntoView();
    own = isOfTheList ? text : "";
  };
  addEventListener("hashchange", recall);
  form.addEventListener("input", () => { page = 0; look(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { page = 0; look(); keep(); }));
  for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => {
    down = by === button.dataset.by && !down;
    by = button.dataset.by;
    page = 0;
    look();
    keep();
  });
  const turn = (pages) => () => { page += pages; show(); get("list").scrollIntoView(); };
  get("back").addEventListener("click", turn(-1));
  get("next").addEventListener("click", turn(1));

  const save = (name, type, text) => {
    const link = element("a", { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  get("json").addEventListener("click", () => {
    const kept = found.map(({ label, bills, should, at, rank, text, ...row }) => row);
    save("amis.json", "application/json", JSON.stringify(kept, null, 1));
  });
  get("csv").addEventListener("click", () => {
    const columns = ["image_id", "name", "region", "at", "label", "bills", "should", "snapshot_id", "reason"];
    // A spreadsheet takes what begins so for a formula.
    const quoted = (text) => '"' + plain(text).replace(/^(?=[=+\-@])/, "'").replaceAll('"', '""') + '"';
    const lines = [columns, ...found.map((row) => columns.map((column) => row[column]))];
    save("amis.csv", "text/csv", lines.map((line) => line.map(quoted).join(",")).join("\r\n"));
  });

  const theme = get("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const named = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Show in ${isDark() ? "light" : "dark"} colours`); };
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; named(); });
  dark.addEventListener("change", named);
  named();

  theme.hidden = form.hidden = table.hidden = false;
  recall();
})();
