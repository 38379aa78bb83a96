// Videos of a group start together, play while they are in sight, and start again together.
const videorlWatch = {
  paused: false,
  seen: new Set(),
  videos: (group) => [...group.querySelectorAll('video')].filter((video) => !video.error),
  play(group) {
    for (const video of this.videos(group)) video.play().catch(() => {});
  },
  restart(group) {
    for (const video of this.videos(group)) video.currentTime = 0;
    if (!this.paused) this.play(group);
  },
  toggle() {
    this.paused = !this.paused;
    document.body.classList.toggle('videos-paused', this.paused);
    for (const group of this.seen) {
      if (!this.paused) this.play(group);
      else for (const video of this.videos(group)) video.pause();
    }
  },
};
const inSight = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    if (isIntersecting) {
      videorlWatch.seen.add(target);
      if (!videorlWatch.paused) videorlWatch.play(target);
    } else {
      videorlWatch.seen.delete(target);
      for (const video of videorlWatch.videos(target)) video.pause();
    }
  }
});
new MutationObserver(() => {
  for (const group of videorlWatch.seen) if (!group.isConnected) videorlWatch.seen.delete(group);
  for (const group of document.querySelectorAll('#app .group:not([data-observed])')) {
    group.dataset.observed = '';
    inSight.observe(group);
  }
}).observe(document, {childList: true, subtree: true});
document.addEventListener('ended', ({target}) => {
  const group = target.closest('.group');
  // The last of them to end starts all again: their lengths may differ.
  if (group && videorlWatch.videos(group).every((video) => video.ended)) {
    videorlWatch.restart(group);
  }
}, true);
document.addEventListener('error', ({target}) => {
  if (target.tagName !== 'VIDEO') return;
  const note = Object.assign(document.createElement('div'), {
    className: 'missing', textContent: 'this video cannot be played',
  });
  target.replaceWith(note);
}, true);
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest('input, textarea, .q-select, .q-menu');
  if (typing) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const button = {
    ArrowRight: '.next-page', n: '.next-page', ArrowLeft: '.previous-page', p: '.previous-page',
  }[event.key];
  const found = button && document.querySelector(button);
  if (found) found.click();
  else if (event.key === ' ') videorlWatch.toggle();
  else if (event.key === '/') document.querySelector('.filters input')?.focus();
  else if (event.key >= '1' && event.key <= '9') {
    document.querySelectorAll('.run-tabs .q-tab')[event.key - 1]?.click();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}, true);  // before the tabs, which would take the arrows of a gallery whose tab has the focus
