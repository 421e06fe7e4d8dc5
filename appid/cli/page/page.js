"use strict";
(() => {
  const STEP = 1.15, LEAST = 0.6, MOST = 2.2, BASE = 0.87;
  document.documentElement.classList.add("js");

  const open = (button, wanted) => {
    button.setAttribute("aria-expanded", String(wanted));
    button.closest("li").classList.toggle("shut", !wanted);
  };
  const buttons = (ladder) => [...ladder.querySelectorAll("button.what")];

  const level = (ladder, name) => {
    ladder.classList.toggle("few", name === "few");
    for (const button of buttons(ladder)) open(button, name === "all");
    for (const each of bar(ladder).querySelectorAll("[aria-pressed]"))
      each.setAttribute("aria-pressed", String(each.dataset.act === name));
  };
  const bar = (ladder) => document.querySelector(`.controls[data-for="${ladder.id}"]`);
  const zoom = (ladder, factor) => {
    const now = factor === 0 ? 1 : Math.min(MOST, Math.max(LEAST, Number(ladder.dataset.zoom || 1) * factor));
    ladder.dataset.zoom = now;
    ladder.parentElement.classList.toggle("large", now > 1);
    ladder.parentElement.style.fontSize = `${BASE * now}rem`;
    bar(ladder).querySelector("[data-act=reset]").textContent = `${Math.round(now * 100)} %`;
  };

  const focus = (ladder, button) => {
    for (const each of buttons(ladder)) each.tabIndex = each === button ? 0 : -1;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  const move = (ladder, from, key) => {
    const all = buttons(ladder), at = all.indexOf(from);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[key];
    if (to === undefined || to < 0 || to >= all.length) return false;
    focus(ladder, all[to]);
    return true;
  };

  const acts = { in: (l) => zoom(l, STEP), out: (l) => zoom(l, 1 / STEP), reset: (l) => zoom(l, 0),
    few: (l) => level(l, "few"), some: (l) => level(l, "some"), all: (l) => level(l, "all") };

  for (const ladder of document.querySelectorAll(".ladder")) {
    const controls = bar(ladder);
    controls.hidden = false;
    level(ladder, "some");
    buttons(ladder).forEach((button, at) => { button.tabIndex = at ? -1 : 0; });
    controls.addEventListener("click", (event) => {
      const act = event.target.closest("button")?.dataset.act;
      if (act) acts[act](ladder);
    });
    ladder.addEventListener("click", (event) => {
      const button = event.target.closest("button.what");
      if (button) { open(button, button.getAttribute("aria-expanded") !== "true"); focus(ladder, button); }
    });
    ladder.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const button = event.target.closest("button.what");
      if (!button) return;
      const scale = { "+": STEP, "=": STEP, "-": 1 / STEP, "0": 0 }[event.key];
      if (scale !== undefined) { zoom(ladder, scale); event.preventDefault(); }
      else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        open(button, event.key === "ArrowRight"); event.preventDefault();
      } else if (move(ladder, button, event.key)) event.preventDefault();
    });
  }
})();
