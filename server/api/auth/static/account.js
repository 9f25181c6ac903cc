// The page behind the links of our mails. The token is in the fragment: no server and no log sees it before the form is sent.
const TEXTS = {
  en: {
    verify_email: ["Verify your e-mail address", "One click, and your account is open.", "Verify", "Done. You can sign in now."],
    reset_password: ["Set a new password", "All your sessions end. Use at least 12 characters.", "Set the password", "Done. Sign in with the new password."],
    invitation: ["Accept the invitation", "If you have signed in here before, leave the fields empty.", "Accept", "Welcome. You can sign in now."],
    second_factor: ["Second step", "Type the code that your app shows, or a recovery code.", "Sign in", "You are signed in."],
    code: "Code", name: "Your name", password: "New password", failed: "That did not work. Is the server reachable?",
  },
  de: {
    verify_email: ["E-Mail-Adresse bestätigen", "Ein Klick, und Ihr Konto ist offen.", "Bestätigen", "Fertig. Sie können sich jetzt anmelden."],
    reset_password: ["Neues Passwort setzen", "Alle Ihre Sitzungen enden. Mindestens 12 Zeichen.", "Passwort setzen", "Fertig. Melden Sie sich mit dem neuen Passwort an."],
    invitation: ["Einladung annehmen", "Wenn Sie sich hier schon einmal angemeldet haben, lassen Sie die Felder leer.", "Annehmen", "Willkommen. Sie können sich jetzt anmelden."],
    second_factor: ["Zweiter Schritt", "Geben Sie den Code Ihrer App oder einen Wiederherstellungscode ein.", "Anmelden", "Sie sind angemeldet."],
    code: "Code", name: "Ihr Name", password: "Neues Passwort", failed: "Das hat nicht geklappt. Ist der Server erreichbar?",
  },
};
const ADDRESSES = {
  verify_email: "/api/v1/auth/verify-email",
  reset_password: "/api/v1/auth/password/reset",
  invitation: "/api/v1/auth/invitations/accept",
  second_factor: "/api/v1/auth/login/second-factor", // where single sign-on has led, and the person has a factor of their own
};
const language = navigator.language.startsWith("de") ? "de" : "en";
const texts = TEXTS[language];
const part = (id) => document.getElementById(id);

function begin() {
  const [purpose, token] = location.hash.slice(1).split("=", 2);
  if (!Object.hasOwn(ADDRESSES, purpose) || !token) return; // `in` would find constructor, too
  // Out of the address bar and the history: the link is as good as a password.
  history.replaceState(null, "", location.pathname);
  document.documentElement.lang = language;
  const [title, text, button, done] = texts[purpose];
  document.title = part("title").textContent = title;
  part("text").textContent = text;
  part("send").textContent = button;
  part("name-label").textContent = texts.name;
  part("password-label").textContent = texts.password;
  part("name-row").hidden = purpose !== "invitation";
  part("code-label").textContent = texts.code;
  part("code-row").hidden = purpose !== "second_factor";
  part("password-row").hidden = purpose !== "reset_password" && purpose !== "invitation";
  part("password").required = purpose === "reset_password";
  part("form").hidden = false;
  part("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(purpose, token, done);
  });
}

async function send(purpose, token, done) {
  const body = purpose === "second_factor" ? { challenge: token } : { token };
  const code = part("code").value.replace(/\s/g, "");
  if (purpose === "second_factor") body[/^\d{6}$/.test(code) ? "code" : "recovery_code"] = code;
  if (part("password").value) body.password = part("password").value;
  if (purpose === "invitation") {
    body.language = language;
    if (part("name").value.trim()) body.name = part("name").value.trim();
  }
  part("send").disabled = true;
  const result = part("result");
  try {
    const answer = await fetch(ADDRESSES[purpose], {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    result.className = answer.ok ? "" : "error";
    result.textContent = answer.ok ? done : (await answer.json()).error.message;
    part("form").hidden = answer.ok;
  } catch {
    result.className = "error";
    result.textContent = texts.failed;
  }
  part("send").disabled = false;
}

begin();
