// The Go client of Toxiproxy itself against the server at TOXIPROXY_URL: every call that it has.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2/client"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func is(what string, ok bool) {
	if !ok {
		panic("not so: " + what)
	}
}

func refused(text string, err error) {
	is(fmt.Sprintf("%q in %v", text, err), err != nil && strings.Contains(err.Error(), text))
}

func echo() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(connection, connection); connection.Close() }()
		}
	}()
	return listener.Addr().String()
}

func roundTrip(listen string) (time.Duration, error) {
	begun := time.Now()
	connection, err := net.Dial("tcp", listen)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	if _, err = connection.Write([]byte("ping")); err == nil {
		_, err = io.ReadFull(connection, make([]byte, 4))
	}
	return time.Since(begun), err
}

func main() {
	upstream := echo()
	client := toxiproxy.NewClient(os.Getenv("TOXIPROXY_URL"))
	version, err := client.Version()
	must(err)
	is("version", strings.Contains(string(version), "2.12.0"))

	proxy, err := client.CreateProxy("go", "localhost:0", upstream)
	must(err)
	_, err = client.CreateProxy("go", "localhost:0", upstream)
	refused("proxy already exists", err)
	_, err = client.Proxy("none")
	refused("proxy not found", err)

	_, err = proxy.AddToxic("slow", "latency", "upstream", 1, toxiproxy.Attributes{"latency": 300})
	must(err)
	_, err = proxy.AddToxic("slow", "latency", "upstream", 1, nil)
	refused("toxic already exists", err)
	took, err := roundTrip(proxy.Listen)
	must(err)
	is("latency", took >= 295*time.Millisecond)
	toxic, err := proxy.UpdateToxic("slow", 0.5, toxiproxy.Attributes{"jitter": 7})
	must(err)
	is("update", toxic.Toxicity == 0.5 && toxic.Attributes["latency"] == 300.0 && toxic.Attributes["jitter"] == 7.0)
	toxics, err := proxy.Toxics()
	must(err)
	is("one toxic", len(toxics) == 1)
	must(proxy.RemoveToxic("slow"))
	refused("toxic not found", proxy.RemoveToxic("slow"))

	must(proxy.Disable())
	_, err = roundTrip(proxy.Listen)
	refused("connection refused", err)
	must(proxy.Enable())
	_, err = roundTrip(proxy.Listen)
	must(err)
	proxy.Upstream = "127.0.0.1:1"
	must(proxy.Save())
	must(client.ResetState())

	_, err = client.Populate([]toxiproxy.Proxy{{Name: "other", Listen: "localhost:0", Upstream: upstream, Enabled: true}})
	must(err)
	_, err = client.AddToxic(&toxiproxy.ToxicOptions{
		ProxyName: "other", ToxicName: "t", ToxicType: "timeout", Stream: "downstream", Toxicity: 1,
	})
	must(err)
	must(client.RemoveToxic(&toxiproxy.ToxicOptions{ProxyName: "other", ToxicName: "t"}))
	proxies, err := client.Proxies()
	must(err)
	is("two proxies", len(proxies) == 2)
	for _, each := range proxies {
		must(each.Delete())
	}
}
