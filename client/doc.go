// Package client is the Go side of a Sluice gateway: one [Client] holds one session and carries any number of channels.
//
// A Client connects by itself and stays connected: a lost link is made anew and the session resumed, so that nothing is lost or doubled; a
// session that the gateway does not have any more is replaced, and each watch opened again at its cursor. What cannot be continued is said:
// a [Watch] tells of a resync before the list that replaces what was known.
//
//	c, err := client.Dial(client.Config{Address: "gateway:8443", Token: client.StaticToken(token)})
//	...
//	w := c.Watch(client.WatchRequest{Cluster: "dev", Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"}})
//	for {
//		ev, err := w.Next(ctx)
//		...
//	}
package client
