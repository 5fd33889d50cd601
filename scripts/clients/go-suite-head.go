// What the tests of the API of Toxiproxy begin with instead of a server of their own.
package suite_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	tclient "github.com/Shopify/toxiproxy/v2/client"
)

const base = "http://localhost:8474"

var client = tclient.NewClient(base)

func WithServer(t *testing.T, f func(string)) {
	defer func() {
		proxies, err := client.Proxies()
		if err != nil {
			t.Error("Failed to list", err)
		}
		for _, proxy := range proxies {
			if err := proxy.Delete(); err != nil {
				t.Error("Failed to clear", err)
			}
		}
	}()
	f(base)
}

func AssertProxyUp(t *testing.T, addr string, up bool) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if (err == nil) != up {
		t.Error("Expected a proxy to be up:", up, err)
	}
	return conn
}

