// Refuses files above the limit before they are uploaded. The listeners run before those of the page (capture).
(() => {
  const refuse = (event, files) => {
    const large = Array.from(files ?? []).find((file) => file.size > LARGEST_FILE || file.size === 0);
    if (!large) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.type === "change") event.target.value = "";
    const record = document.querySelector("#refused textarea, #refused input");
    record.value = JSON.stringify([large.name, large.size, Date.now()]);  // the time: a second refusal is a change, too
    record.dispatchEvent(new Event("input", { bubbles: true }));
  };
  window.addEventListener("change", (event) => event.target.type === "file" && refuse(event, event.target.files), true);
  window.addEventListener("drop", (event) => refuse(event, event.dataTransfer?.files), true);
})();
