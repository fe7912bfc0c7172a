(() => {
  const nav = document.querySelector("nav.toc");
  const links = new Map([...nav.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const marks = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  let current = null;
  let waiting = false;
  const update = () => {
    waiting = false;
    let here = marks[0];
    for (const mark of marks) if (mark.getBoundingClientRect().top < innerHeight * 0.25) here = mark;
    const link = here && links.get(here.id);
    if (!link || link === current) return;
    if (current) current.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    current = link;
    const box = nav.getBoundingClientRect();
    const spot = link.getBoundingClientRect();
    if (spot.top < box.top || spot.bottom > box.bottom) nav.scrollTop += spot.top - box.top - box.height / 2;
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(update);
    waiting = true;
  }, { passive: true });
  update();
})();
