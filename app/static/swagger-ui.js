"use strict";

// Each API key field of the Authorize dialog takes the focus when it appears, so the dialog would open at the last one.
// Focus the password form instead, which is the first; once signed in, show the beginning of the dialog.
function openAtPasswordForm() {
  const dialog = document.querySelector(".modal-ux-content");
  dialog?.querySelector("#oauth_username")?.focus();
  dialog?.scrollTo(0, 0);
}

const PasswordFormFirst = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        showDefinitions: (show) => (definitions) => {
          const action = show(definitions);
          setTimeout(openAtPasswordForm); // After the dialog was rendered.
          return action;
        },
      },
    },
  },
});

// Shows the schema that the page names.
window.ui = SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.openapiUrl,
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  plugins: [PasswordFormFirst],
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  // A token lives as long as the page that asked for it.
  persistAuthorization: false,
  // Else the schema's address is sent to validator.swagger.io from every host but localhost.
  validatorUrl: null,
});
