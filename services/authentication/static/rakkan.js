// Calls the browser's WebAuthn for the forms that ask for it, and counts down. Decides nothing, loads nothing.
(() => {
  "use strict";

  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(Array.from(new Uint8Array(buffer), (b) => String.fromCharCode(b)).join(""))
      .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const keys = (ids) => ids.map((id) => ({ type: "public-key", id: bytes(id) }));

  // Left out, it is this host.
  const rpId = document.querySelector("meta[name=rp-id]")?.content;

  const get = async (asked) => {
    const made = await navigator.credentials.get({
      publicKey: {
        challenge: bytes(asked.challenge), rpId, allowCredentials: keys(asked.allow), userVerification: "required",
      },
    });
    return {
      credential_id: text(made.rawId),
      client_data_json: text(made.response.clientDataJSON),
      authenticator_data: text(made.response.authenticatorData),
      signature: text(made.response.signature),
      user_handle: made.response.userHandle ? text(made.response.userHandle) : "",
    };
  };

  const create = async (asked) => {
    const made = await navigator.credentials.create({
      publicKey: {
        rp: { id: rpId, name: asked.service },
        user: { id: bytes(asked.handle), name: asked.name, displayName: asked.displayName },
        challenge: bytes(asked.challenge),
        pubKeyCredParams: asked.algorithms.map((alg) => ({ type: "public-key", alg })),
        excludeCredentials: keys(asked.exclude),
        authenticatorSelection: { residentKey: "required", requireResidentKey: true, userVerification: "required" },
        attestation: "none",
      },
    });
    return {
      new_client_data_json: text(made.response.clientDataJSON),
      attestation_object: text(made.response.attestationObject),
    };
  };

  const begin = async (form) => {
    const answer = await fetch(form.dataset.begin, {
      method: "POST", body: new URLSearchParams(new FormData(form)), credentials: "same-origin", redirect: "error",
    });
    if (!answer.ok) throw new Error(answer.status === 429 ? "busy" : "failed");
    return answer.json();
  };

  // What was approved already is kept, so that a second try does not ask for the first passkey again.
  const approvals = new WeakMap();

  const ceremony = async (form) => {
    if (form.dataset.begin) {
      const asked = await begin(form);
      return { login_id: asked.login_id, ...(await get(asked)) };
    }
    const approving = JSON.parse(form.dataset.get || "null");
    if (approving && !approvals.has(form)) approvals.set(form, await get(approving));
    const making = JSON.parse(form.dataset.create || "null");
    return { ...(approvals.get(form) || {}), ...(making ? await create(making) : {}) };
  };

  const say = (form, words) => {
    const line = form.querySelector("[role=alert]") || document.querySelector("[role=alert]");
    line.textContent = words;
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-passkey]")) return;
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.disabled) return;
    if (!window.PublicKeyCredential) {
      say(form, form.dataset.unsupported);
      return;
    }
    button.disabled = true;
    say(form, form.dataset.waiting);
    try {
      for (const [name, value] of Object.entries(await ceremony(form))) form.elements.namedItem(name).value = value;
    } catch (error) {
      say(form, form.dataset[error.message] || form.dataset.failed);
      button.disabled = false;
      button.focus();
      return;
    }
    approvals.delete(form);
    form.submit();
  });

  // A page from the back/forward cache may have a spent form on it.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  const clock = document.querySelector("[data-seconds-left]");
  if (clock) {
    const end = performance.now() + 1000 * Number(clock.dataset.secondsLeft);
    const shown = clock.querySelector("[data-clock]");
    const tick = () => {
      const left = Math.max(0, Math.ceil((end - performance.now()) / 1000));
      shown.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
      if (left > 0) return;
      clearInterval(timer);
      const form = document.querySelector("form[data-passkey]");
      form.querySelector("button").disabled = true;
      say(form, clock.dataset.over);
    };
    const timer = setInterval(tick, 500);
    tick();
  }
})();
