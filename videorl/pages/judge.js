// Keys press the buttons that are on the page, so that keyboard and mouse go the same way.
const videorlJudge = {
  press(selector) { document.querySelector(selector)?.click(); },
  videos() { return [...document.querySelectorAll('.judge video')]; },
  toggle() {
    const paused = this.videos().every(video => video.paused);
    this.videos().forEach(video => paused ? video.play() : video.pause());
  },
  showCurrent() {
    document.querySelector('.question.current')?.scrollIntoView({block: 'nearest'});
  },
  replay() { this.videos().forEach(video => { video.currentTime = 0; video.play(); }); },
};
addEventListener('keydown', event => {
  const {key, target} = event;
  const isButton = target.closest('button');
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, textarea')) return;
  if (/^[1-9]$/.test(key)) videorlJudge.press(`.question.current .choice[data-key="${key}"]`);
  else if (key === 'Backspace') videorlJudge.press('.judge .back');
  else if (key === 'r') videorlJudge.replay();
  else if (key === 'Enter' && !isButton) videorlJudge.press('.judge .save');
  else if (key === ' ' && !isButton) videorlJudge.toggle();
  else return;
  event.preventDefault();
});
// After a click the focus goes back to the page: Enter then saves instead of clicking again.
addEventListener('click', event => {
  if (event.detail && event.target.closest('.judge button')) document.activeElement.blur();
});
addEventListener('error', ({target}) => {
  if (target.tagName === 'VIDEO') target.insertAdjacentHTML(
    'afterend', '<p class="note">This browser cannot play the video; tell who runs the study.</p>');
}, true);
