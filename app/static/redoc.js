"use strict";

// Shows the schema that the page names.
const element = document.getElementById("redoc");
Redoc.init(element.dataset.openapiUrl, {}, element);
