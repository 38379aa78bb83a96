// Keys press the buttons that are on the page, so that keyboard and mouse go the same way.
const videorlJudge = {
  // How often the server has yet to call `showCurrent`: once for the page, then once for each click.
  awaited: 1,
  // Keys that came meanwhile.
  queue: [],
  type(key) {
    if (!this.awaited) this.press(key);
    else this.queue?.push(key);
  },
  press(key) {
    if (key === 'Backspace') this.click('.judge .back');
    else if (key === 'Enter') this.click('.judge .save');
    else this.click(`.question.current .choice[data-key="${key}"]`);
  },
  click(selector) { document.querySelector(selector)?.click(); },
  clicked(button) {
    this.awaited += 1;
    // No key answers a pair that nobody has seen: those that come until it is shown are lost.
    if (button.matches('.save')) this.queue = null;
  },
  // The server calls this when it has shown the page, or what a click has changed.
  showCurrent() {
    document.querySelector('.question.current')?.scrollIntoView({block: 'nearest'});
    this.awaited = Math.max(this.awaited - 1, 0);
    if (this.awaited) return;
    this.queue ??= [];
    while (!this.awaited && this.queue?.length) this.press(this.queue.shift());
  },
  videos() { return [...document.querySelectorAll('.judge video')]; },
  // Refused where a pause comes before the first picture: nothing to tell anybody.
  play(video) { video.play().catch(() => {}); },
  toggle() {
    const paused = this.videos().every(video => video.paused);
    this.videos().forEach(video => paused ? this.play(video) : video.pause());
  },
  replay() { this.videos().forEach(video => { video.currentTime = 0; this.play(video); }); },
};
addEventListener('keydown', event => {
  const {key, target} = event;
  const isButton = target.closest('button');
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, textarea')) return;
  const does =
    /^[1-9]$/.test(key) || key === 'Backspace' || (key === 'Enter' && !isButton)
      ? () => videorlJudge.type(key)
      : key === 'r' ? () => videorlJudge.replay()
      : key === ' ' && !isButton ? () => videorlJudge.toggle()
      : null;
  if (!does) return;
  event.preventDefault();
  // A key that is held down is one answer, not an answer to every question.
  if (!event.repeat) does();
});
// First of all, so that it is known however soon the next key comes. A disabled button has no clicks.
addEventListener('click', event => {
  const button = event.target.closest('.judge button');
  if (!button) return;
  // A second click on what is being saved: the server answers only the first.
  if (videorlJudge.queue === null) event.stopImmediatePropagation();
  else videorlJudge.clicked(button);
}, true);
// After a click the focus goes back to the page: Enter then saves instead of clicking again.
addEventListener('click', event => {
  if (event.detail && event.target.closest('.judge button')) document.activeElement.blur();
});
addEventListener('error', ({target}) => {
  if (target.tagName === 'VIDEO') target.insertAdjacentHTML(
    'afterend', '<p class="note">This browser cannot play the video; tell who runs the study.</p>');
}, true);
