// What every page needs: theme, toasts, announcements, dialogs, menus, copy buttons, file drop.
// Pages reach it as window.labelhub; servers reach toasts with the header HX-Trigger: {"toast": {"text": "…"}}.
(() => {
  "use strict";
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");

  // Theme. A cookie, so that the server paints the first frame in the right colours. No cookie: the system decides.
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches);
  function nameThemeButtons() {
    const word = isDark() ? "Use light colours" : "Use dark colours";
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.setAttribute("aria-label", word);
      button.title = word;
      const use = button.querySelector("use");
      use?.setAttribute("href", use.getAttribute("href").replace(/#.*/, isDark() ? "#sun" : "#moon"));
    }
  }
  function setTheme(theme) {
    if ((theme === "dark") === wantsDark.matches) theme = "";
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    document.cookie = `theme=${theme}; path=/; SameSite=Lax; max-age=${theme ? 31536000 : 0}`;
    nameThemeButtons();
  }

  // Announcements for screen readers: polite for saves and counts, assertive for failures.
  function announce(text, urgent = false) {
    const region = byId(urgent ? "alert" : "live");
    if (!region) return;
    region.textContent = "";
    setTimeout(() => { region.textContent = text; }, 60);
  }

  // toast("Saved.", {kind: "danger", action: "Undo", run: () => …, seconds: 6}); one toast a key, the newest wins.
  function toast(text, { kind = "", action = "", run = null, seconds = 6, key = "" } = {}) {
    const shelf = byId("toasts");
    if (!shelf) return null;
    const box = document.createElement("div");
    box.className = `toast ${kind}`;
    if (key) {
      shelf.querySelector(`[data-key-of-toast="${CSS.escape(key)}"]`)?.remove();
      box.dataset.keyOfToast = key;
    }
    const words = document.createElement("p");
    words.textContent = text;
    box.append(words);
    let timer;
    const close = () => { clearTimeout(timer); box.remove(); };
    const button = (name, label, act) => {
      const element = document.createElement("button");
      element.type = "button";
      element.textContent = name;
      if (label) element.setAttribute("aria-label", label);
      element.addEventListener("click", () => { close(); act?.(); });
      box.append(element);
    };
    if (action) button(action, "", run);
    button("✕", "Close this message", null);
    const start = () => { timer = setTimeout(close, seconds * 1000); };
    const hold = () => clearTimeout(timer);
    for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, hold);
    for (const event of ["pointerleave", "focusout"]) box.addEventListener(event, start);
    shelf.append(box);
    while (shelf.children.length > 3) shelf.firstElementChild.remove();
    announce(text, kind === "danger");
    start();
    return close;
  }

  function openDialog(id) {
    const dialog = byId(id);
    if (!dialog?.showModal || dialog.open) return false;
    dialog.showModal();
    return true;
  }

  async function copy(button) {
    const source = button.dataset.copyFrom ? document.querySelector(button.dataset.copyFrom) : null;
    const text = source ? (source.value ?? source.textContent) : button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text.trim());
      toast("Copied.", { seconds: 3, key: "copy" });
    } catch {
      if (source) getSelection()?.selectAllChildren(source);
      toast("The browser does not let this page copy. The text is selected: copy it by key.", { kind: "danger" });
    }
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-toggle], [data-open], [data-close], [data-copy], [data-copy-from]");
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    if (event.target.matches("dialog[open]")) {
      const { left, right, top, bottom } = event.target.getBoundingClientRect();
      const inside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
      if (!inside) event.target.close();
    }
    if (!target) return;
    if ("themeToggle" in target.dataset) setTheme(isDark() ? "light" : "dark");
    else if (target.dataset.open) { if (openDialog(target.dataset.open)) event.preventDefault(); }
    else if ("close" in target.dataset) target.closest("dialog")?.close();
    else copy(target);
  });

  const isTyping = (element) => element.matches("input:not([type=radio], [type=checkbox], [type=range]), textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = document.querySelector("details.menu[open]");
      if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
    }
    if (event.key !== "?" || event.isComposing || event.repeat || event.ctrlKey || event.metaKey || isTyping(event.target)) return;
    if (openDialog("keys")) event.preventDefault();
  });

  // A drop zone is a file input stretched over its box: it works without this; here it only shows what was chosen.
  document.addEventListener("change", (event) => {
    const chosen = event.target.closest(".drop")?.querySelector(".chosen");
    const file = event.target.files?.[0];
    if (chosen && file) chosen.textContent = `${file.name}, ${(file.size / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
  });
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => event.target.closest?.(".drop")?.classList.toggle("over", over));
  }

  // htmx: failures are told, never swallowed; the worker light is announced only when its word changes.
  document.addEventListener("toast", ({ detail }) => toast(detail.text ?? detail.value ?? "", detail));
  document.addEventListener("htmx:error", ({ detail }) => {
    if (detail.ctx?.sourceElement?.id === "light") return;
    toast("The server did not answer. What you see may be old; nothing was lost. Try again.", { kind: "danger", key: "network" });
  });
  let lastLight = "";
  document.addEventListener("htmx:after:swap", () => {
    const word = byId("light")?.dataset.word ?? "";
    if (lastLight && word && word !== lastLight) announce(word);
    lastLight = word || lastLight;
  });

  // On a narrow screen the tabs scroll: begin with the current one in view.
  const tabs = document.querySelector(".site-head .tabs");
  const here = tabs?.querySelector("[aria-current]");
  if (here) tabs.scrollLeft = here.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - here.clientWidth) / 2;

  wantsDark.addEventListener("change", nameThemeButtons);
  nameThemeButtons();
  window.labelhub = { toast, announce, openDialog, isTyping };
})();
