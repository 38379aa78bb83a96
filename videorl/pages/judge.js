// Keys press the buttons that are on the page, so that keyboard and mouse go the same way.
const videorlJudge = {
  // Keys that came while the server had not yet shown what follows from the click before.
  queue: [],
  isWaiting: false,
  type(key) {
    if (!this.isWaiting) this.press(key);
    else if (this.queue !== null) this.queue.push(key);
  },
  press(key) {
    if (key === 'Backspace') this.click('.judge .back');
    else if (key !== 'Enter') this.click(`.question.current .choice[data-key="${key}"]`);
    // No key is an answer to a pair that nobody has seen: those until it is shown are lost.
    else if (this.click('.judge .save')) this.queue = null;
  },
  click(selector) {
    const button = document.querySelector(selector);
    if (!button || button.disabled) return false;
    button.click();
    return true;
  },
  // The server calls this when it has shown what a click has changed.
  showCurrent() {
    document.querySelector('.question.current')?.scrollIntoView({block: 'nearest'});
    this.isWaiting = false;
    this.queue ??= [];
    while (!this.isWaiting && this.queue?.length) this.press(this.queue.shift());
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
addEventListener('click', ({target}) => {
  if (target.closest('.judge button')) videorlJudge.isWaiting = true;
}, true);
// After a click the focus goes back to the page: Enter then saves instead of clicking again.
addEventListener('click', event => {
  if (event.detail && event.target.closest('.judge button')) document.activeElement.blur();
});
addEventListener('error', ({target}) => {
  if (target.tagName === 'VIDEO') target.insertAdjacentHTML(
    'afterend', '<p class="note">This browser cannot play the video; tell who runs the study.</p>');
}, true);
