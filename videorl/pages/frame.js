// Light or dark, as the system has it until a person chooses.
const videorlFrame = {
  kept: 'videorl-dark',
  switchDark() {
    Quasar.Dark.toggle();
    localStorage.setItem(this.kept, Quasar.Dark.isActive);
  },
  // Before Quasar is there, which sets the same class.
  darkAtOnce() {
    const kept = localStorage.getItem(this.kept);
    const dark = kept ? kept === 'true' : matchMedia('(prefers-color-scheme: dark)').matches;
    document.body.classList.toggle('body--dark', dark);
  },
};
addEventListener('load', () => {
  const kept = localStorage.getItem(videorlFrame.kept);
  if (kept !== null) Quasar.Dark.set(kept === 'true');
});
// Videos of up to 128 pixels are shown enlarged; their size is known once they are open.
addEventListener('loadedmetadata', ({target}) => {
  if (target.tagName === 'VIDEO') target.classList.toggle('tiny', target.videoWidth <= 128);
}, true);
// What the server drew before any script goes when the page itself is there.
new MutationObserver((_, observer) => {
  if (!document.querySelector('#app .nicegui-content')) return;
  document.getElementById('first-paint')?.remove();
  observer.disconnect();
}).observe(document, {childList: true, subtree: true});
