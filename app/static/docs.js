// A file of its own: the page's Content-Security-Policy runs no inline script.
const place = document.getElementById("api");
SwaggerUIBundle({
  domNode: place,
  url: place.dataset.document,
  validatorUrl: null, // its default sends the document to another host
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
});
