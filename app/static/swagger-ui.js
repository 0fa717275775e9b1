"use strict";

// Shows the schema that the page names.
window.ui = SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.openapiUrl,
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  // A token lives as long as the page that asked for it.
  persistAuthorization: false,
  // Else the schema's address is sent to validator.swagger.io from every host but localhost.
  validatorUrl: null,
});
