# Sluice. `make help` lists what there is; every target sets up what it lacks, at pinned versions: Go modules, npm packages, and on Debian programs.

SHELL       := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

FUZZTIME ?= 60s
ARGS     ?=
AGAINST  ?= .git\#branch=main

.PHONY: help dev build test image bench soak fuzz generate lint lint-go lint-proto breaking tools drift kube unit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: build ## build and run the gateway with an embedded cluster and issuer (ARGS='--token-ttl 5m')
	@command -v grpcurl >/dev/null || set -- --grpcurl "$$(tools/build.sh grpcurl)"; exec bin/sluice dev "$$@" $(ARGS)

build: ## build bin/sluice
	go build -trimpath -ldflags "$$(tools/stamp.sh)" -o bin/sluice ./cmd/sluice

test: ## set up whatever is missing, then run every check and every test
	@tools/steps.sh \
	  'tools=$(MAKE) tools' \
	  'generated code=tools/drift.sh' \
	  'protocol lint=$(MAKE) lint-proto' \
	  'Go lint=tools/lint.sh' \
	  'etcd, kube-apiserver, node=$(MAKE) kube' \
	  'tests=tools/test.sh'

image: ## build the container image, dist/sluice-image.tar (ARGS='-platforms linux/amd64')
	@nice -n 5 tools/image.sh $(ARGS)

unit: ## run the Go tests alone
	@tools/test.sh

bench: ## measure the gateway beside direct watches and a naive bridge (ARGS go to it)
	go run ./bench $(ARGS)

# Without the race detector, under which all of this runs in `make test`, only less of it: the figures are to be the gateway's own, and a night is
# to be enough. One package at a time, so that each test says how far it is.
soak: kube ## run the long tests, those named Soak, for an hour or so (ARGS='-run SoakNoExec' for some)
	@go test -tags soak -run Soak -count 1 -p 1 -v -timeout 3h $(ARGS) \
	  $$(grep -rl --include '*_test.go' --exclude-dir node_modules '^//go:build soak' . | xargs -n 1 dirname | sort -u)

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@FUZZTIME='$(FUZZTIME)' tools/fuzz.sh

generate: ## generate gen/ and web/src/gen/ from proto/, and what docs/ says of fields and flags
	"$$(tools/build.sh buf)" generate
	node=$$(tools/web.sh); PATH=$$node:$$PATH "$$(tools/build.sh buf)" generate --template buf.gen.web.yaml
	go generate ./cmd/sluice/...

lint: lint-proto lint-go ## lint the protocol and the Go code

lint-go:
	@tools/lint.sh $(ARGS)

lint-proto:
	@buf=$$(tools/build.sh buf); "$$buf" lint; "$$buf" format --diff --exit-code

breaking: ## report what would break against AGAINST (a buf input, default the main branch)
	-"$$(tools/build.sh buf)" breaking --against '$(AGAINST)'

tools: ## build the pinned tools into the user's cache
	@tools/setup.sh
	@for tool in buf golangci-lint grpcurl connectconformance grpc-interop h2spec; do tools/build.sh $$tool; done

kube: ## build etcd, kube-apiserver and the node, which the tests run against, into the user's cache
	@go run ./test/kube/cmd/kube build

clean: ## remove what was built here (not the cache)
	rm -rf bin dist
