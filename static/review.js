// Review by keys: one key, one decision. Digits go by physical key, letters by character with the
// physical key as fallback (Cyrillic, Greek). Nothing acts while a field has the focus, a key is
// held down or an input method is composing.
(() => {
  "use strict";
  const card = () => document.getElementById("card");
  const decide = () => document.getElementById("decide");
  let shownAt = performance.now();
  let awaySince = 0;
  let away = 0;

  // Time on the card, without the time the page was hidden.
  const seconds = () => ((performance.now() - shownAt - away) / 1000).toFixed(2);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) awaySince = performance.now();
    else if (awaySince) { away += performance.now() - awaySince; awaySince = 0; }
  });

  const singleKeys = () => localStorage.getItem("single-keys") !== "off";
  const box = document.getElementById("single-keys");
  if (box) {
    box.checked = singleKeys();
    box.addEventListener("change", () => localStorage.setItem("single-keys", box.checked ? "on" : "off"));
  }

  function named(event) {
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
    if (digit && !event.shiftKey) return digit[1];
    const key = event.key.toLowerCase();
    if (/^[a-z/]$/.test(key) || key === "enter") return key;
    const letter = /^Key([A-Z])$/.exec(event.code);
    return letter ? letter[1].toLowerCase() : key;
  }

  function visibleChoices() {
    return [...document.querySelectorAll("#decide .choice:not([hidden])")];
  }

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const field = window.labelhub.isTyping(event.target);
    if (field) {
      if (event.key === "Escape") { event.target.blur(); event.preventDefault(); }
      if (event.target.id === "find" && event.key === "Enter") {
        event.preventDefault();
        if (event.target.value.trim()) visibleChoices()[0]?.click();
      }
      return;
    }
    const key = named(event);
    // Enter on a focused button or link is that button's own.
    if (key === "enter" && event.target.closest("button, a, summary, label")) return;
    if (!singleKeys() && key !== "enter") return;
    if (key === "/") {
      const find = document.getElementById("find");
      if (find) { find.focus(); find.select(); event.preventDefault(); }
      return;
    }
    const button = card()?.querySelector(`[data-key="${CSS.escape(key)}"]:not([disabled])`);
    if (button) { event.preventDefault(); button.click(); }
  });

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-note]")) return;
    const note = document.getElementById("note");
    document.getElementById("note-box").open = true;
    note?.focus();
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "find") return;
    const words = event.target.value.toLowerCase().split(/[\s_]+/).filter(Boolean);
    for (const choice of document.querySelectorAll("#decide .choice")) {
      const name = choice.querySelector(".name").textContent.toLowerCase();
      choice.hidden = !words.every((word) => name.includes(word));
    }
    const found = visibleChoices();
    for (const choice of document.querySelectorAll("#decide .choice.first")) choice.classList.remove("first");
    if (words.length) found[0]?.classList.add("first");
  });

  // The answer is sent once: a second press before the next card does nothing.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#decide button:not([type=button])");
    if (!button) return;
    const form = decide();
    if (form.dataset.sent) { event.preventDefault(); event.stopImmediatePropagation(); return; }
    form.elements.seconds.value = seconds();
    form.dataset.sent = "yes";
  }, true);
  document.addEventListener("htmx:error", () => { if (decide()) delete decide().dataset.sent; });

  const first = document.getElementById("item-title");
  if (first) first.dataset.seen = "yes";
  document.addEventListener("htmx:after:swap", () => {
    const now = document.getElementById("item-title");
    if (!now || now.dataset.seen) return;
    now.dataset.seen = "yes";
    shownAt = performance.now();
    away = 0;
    now.focus({ preventScroll: true });
    const left = document.getElementById("left")?.textContent ?? "";
    window.labelhub.announce(`${now.textContent}. ${left} left.`);
  });

  // Whoever is still reading keeps the item.
  let renewed = Date.now();
  for (const act of ["keydown", "pointerdown"]) {
    document.addEventListener(act, () => {
      const url = card()?.dataset.renew;
      if (!url || decide()?.dataset.sent || Date.now() - renewed < 120000) return;
      renewed = Date.now();
      const token = decide()?.elements.csrfmiddlewaretoken.value ?? "";
      fetch(url, { method: "POST", headers: { "X-CSRFToken": token } }).then((answer) => {
        if (answer.status === 409 && card()?.dataset.renew === url && !decide()?.dataset.sent) window.labelhub.toast("This item went to somebody else meanwhile. Your answer will be kept as a second vote.");
      }).catch(() => {});
    });
  }
})();
