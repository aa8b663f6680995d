package client

import (
	"context"
	"fmt"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Clusters names the clusters behind the gateway that the caller's credential may be used for.
func (c *Client) Clusters(ctx context.Context) ([]*sluicev1.Cluster, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	r, err := sluicev1.NewClusterServiceClient(c.calls).ListClusters(authorized(ctx, token), &sluicev1.ListClustersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", status.From(err))
	}
	return r.GetClusters(), nil
}

// Resources names the resources that a cluster serves.
func (c *Client) Resources(ctx context.Context, cluster string) (*sluicev1.ListResourcesResponse, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	r, err := sluicev1.NewClusterServiceClient(c.calls).ListResources(authorized(ctx, token), &sluicev1.ListResourcesRequest{Cluster: cluster})
	if err != nil {
		return nil, fmt.Errorf("list the resources of cluster %q: %w", cluster, status.From(err))
	}
	return r, nil
}
