// Package browser holds the tests that need a browser: a gateway, in front of a real API server and an embedded one, and pages of
// several origins in headless Chromium.
//
// The pages are in page/, on the client library of gRPC-Web and Connect that others use; driver.ts drives Chromium and is told what to
// do by the tests. Both are bundled with the packages of web/ when the tests start.
package browser
