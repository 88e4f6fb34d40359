# Valetkey. `make` alone lists the targets.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X main.version=$(VERSION)
STATE    ?= $(CURDIR)/tmp/state
FUZZTIME ?= 30s
BENCH    ?=
PREFIX   ?= /usr/local
COMPLETIONS := bash-completion/completions zsh/site-functions fish/vendor_completions.d
# Tests of our own code run with the race detector; those against other people's programs drive separate processes.
UNIT     := ./cmd/... ./docs/... ./internal/... ./ldapbridge/... ./plugin/... ./saslauth/... ./store/...

.PHONY: help build man install test unit interop demo run bench fuzz lint peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Dovecot limits the address space of what it starts to 256 MB, in which no 64-bit Go program gets going: the helper is built
# for 32 bits. On other machines see its package comment.
HELPER_ARCH := $(if $(filter amd64,$(shell $(GO) env GOARCH)),386,$(shell $(GO) env GOARCH))

build: ## build the programs into bin/
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...
	@CGO_ENABLED=0 GOARCH=$(HELPER_ARCH) $(GO) build -trimpath -ldflags '-s -w $(LDFLAGS)' -o bin/ ./cmd/valetkey-checkpassword

man: build ## write the manual pages and the completions of shells into bin/share
	@rm -rf bin/share && mkdir -p bin/share/man/man1 bin/share/man/man5 bin/share/man/man8 $(addprefix bin/share/,$(COMPLETIONS))
	@bin/valetkey manual bin/share/man/man1
	@bin/valetkeyd --manual bin/share/man/man8 && mv bin/share/man/man8/*.5 bin/share/man/man5
	@bin/valetkey completion bash >bin/share/bash-completion/completions/valetkey
	@bin/valetkey completion zsh >bin/share/zsh/site-functions/_valetkey
	@bin/valetkey completion fish >bin/share/fish/vendor_completions.d/valetkey.fish

install: ## put what "make man" made below PREFIX (/usr/local); it builds nothing, so that root needs no Go
	@test -d bin/share || { echo 'nothing to install: run "make man" first'; exit 1; }
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share'
	install -m 755 bin/valetkey* '$(DESTDIR)$(PREFIX)/bin'
	cp -R bin/share/. '$(DESTDIR)$(PREFIX)/share/'

test: peers lint unit interop ## install what the tests need and run everything

peers:
	@test/install-peers
	@test/install-dovecot24

unit:
	$(GO) test -race -timeout 15m $(UNIT)
	$(GO) test -run TestIdleMemory ./ldapbridge # the race detector multiplies all sizes

interop: ## only the tests against other people's programs and the faults
	$(GO) test -count=1 -timeout 20m ./test/... # never from the cache: they test programs that go test does not know of

demo: ## from a clean checkout to a first login, with everything cleaned up after
	@test/demo

run: build ## run the daemon on a private Postgres in tmp/state
	bin/valetkeyd --state-dir '$(STATE)'

bench: ## logins per second against echo servers, slapd, Dovecot and saslauthd, in one run; BENCH="--seconds 10" for options
	@test/install-peers postgresql slapd dovecot-core sasl2-bin gcc libc6-dev
	$(GO) run ./test/bench $(BENCH)

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; \
	  done; \
	done

lint: ## formatting and vet
	@bad=$$(gofmt -l cmd docs internal ldapbridge plugin saslauth store test); test -z "$$bad" || { echo "not gofmt-ed: $$bad"; exit 1; }
	$(GO) vet ./...

clean: ## remove what was built
	rm -rf bin tmp
