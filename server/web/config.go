package web

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Config is who may use the web port from a browser, and how much a request may hold. The zero Config lets no page of another origin in.
type Config struct {
	// Origins are the exact origins (scheme://host[:port], as a browser writes them) whose pages may call; none by default. A page that
	// came from the port itself may always.
	Origins []string
	// Hosts are the names (host, for any port, or host:port) by which the port may be called, beside those of its certificate.
	Hosts []string
	// BodyBytes is web.body_bytes, the longest body of a request, before and after decompression: 1 MiB.
	BodyBytes int
	// Headers is web.headers, the most header fields of a request: 64.
	Headers int
	// Forward are further request headers that become metadata, for services that are not Sluice's own; none by default.
	Forward []string
}

func (c Config) withDefaults() Config {
	if c.BodyBytes == 0 {
		c.BodyBytes = 1 << 20
	}
	if c.Headers == 0 {
		c.Headers = 64
	}
	return c
}

// Validate reports all that is wrong at once, as New does. Zero fields are right.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for _, o := range c.Origins {
		if err := validOrigin(o); err != nil {
			errs = append(errs, fmt.Errorf("web.origins: %q is no origin: %w", o, err))
		}
	}
	for _, h := range c.Hosts {
		if _, ok := parseHost(h); !ok {
			errs = append(errs, fmt.Errorf("web.hosts: %q is no host or host:port", h))
		}
	}
	if c.BodyBytes < 1<<10 || c.BodyBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("web.body_bytes is %d, must be between 1 KiB and 64 MiB", c.BodyBytes))
	}
	for _, name := range c.Forward {
		if !forwardable(name) {
			errs = append(errs, fmt.Errorf("web.forward: %q cannot be forwarded", name))
		}
	}
	if c.Headers < 16 || c.Headers > 1024 {
		errs = append(errs, fmt.Errorf("web.headers is %d, must be between 16 and 1024", c.Headers))
	}
	return errors.Join(errs...)
}

// validOrigin wants an origin as browsers write it (RFC 6454, section 6.2), since it is compared byte for byte.
func validOrigin(o string) error {
	u, err := url.Parse(o)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("its scheme must be https or http")
	}
	h, ok := parseHost(u.Host)
	switch {
	case !ok || u.Scheme+"://"+u.Host != o:
		return errors.New("it must be scheme://host or scheme://host:port and nothing else")
	case h.String() != u.Host:
		return fmt.Errorf("browsers write it %s://%s", u.Scheme, h)
	case h.port == map[string]string{"https": "443", "http": "80"}[u.Scheme]:
		return fmt.Errorf("browsers leave the port out: %s", strings.TrimSuffix(o, ":"+h.port))
	}
	return nil
}
