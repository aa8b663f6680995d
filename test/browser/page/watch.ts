// One call of GatewayService.Watch.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { GatewayService } from "../../../web/src/gen/sluice/v1/gateway_pb";
import { Reason, StatusSchema } from "../../../web/src/gen/sluice/v1/status_pb";
import type { WatchTargetSchema } from "../../../web/src/gen/sluice/v1/target_pb";
import type { Table } from "./table";

export interface Options {
  /** Where the gateway's web port is. */
  gateway: string;
  protocol: "grpc-web" | "connect";
  token: string;
  cluster: string;
  target: MessageInitShape<typeof WatchTargetSchema>;
}

/** End is how a watch ended, as the client library tells it. */
export interface End {
  /** The name of the code, "OK" when the server ended the watch without one. */
  code: string;
  message: string;
  /** The name of sluice.v1.Status.reason; empty when the status carries no such detail. */
  reason: string;
  httpCode: number;
  /** The API server's own Status. */
  kubernetes?: { status: string; message: string; reason: string; code: number };
}

interface KubernetesObject {
  metadata: { namespace?: string; name: string; annotations?: Record<string, string> };
}

/** Watch follows the objects of one resource in a table, until it ends or is aborted. */
export class Watch {
  /** The annotation "note" of each event's object, in the order of the events. */
  readonly notes: string[] = [];
  /** The objects as they last came. */
  readonly objects = new Map<string, KubernetesObject>();
  /** Resolves, never rejects, when the watch has ended. */
  readonly ended: Promise<End>;

  private readonly aborter = new AbortController();

  constructor(
    private readonly options: Options,
    private readonly table: Table,
  ) {
    this.ended = this.run().then(
      () => ({ code: "OK", message: "", reason: "", httpCode: 0 }),
      (reason: unknown) => explain(ConnectError.from(reason)),
    );
    void this.ended.then((end) => this.table.say(`${end.code} ${end.message}`));
  }

  abort(): void {
    this.aborter.abort();
  }

  private async run(): Promise<void> {
    const { gateway, protocol, token, cluster, target } = this.options;
    const create = protocol === "connect" ? createConnectTransport : createGrpcWebTransport;
    const client = createClient(GatewayService, create({ baseUrl: gateway, useBinaryFormat: true }));
    const headers = { authorization: `Bearer ${token}` };
    for await (const response of client.watch({ cluster, watch: target }, { headers, signal: this.aborter.signal })) {
      if (response.event !== "") this.apply(JSON.parse(response.event) as { type: string; object: KubernetesObject });
    }
  }

  private apply(event: { type: string; object: KubernetesObject }): void {
    const { namespace = "", name, annotations = {} } = event.object.metadata;
    const note = annotations.note ?? "";
    this.notes.push(note);
    if (event.type === "DELETED") {
      this.objects.delete(name);
      this.table.remove(name);
      return;
    }
    this.objects.set(name, event.object);
    this.table.put({ namespace, name, note });
  }
}

/** What the error of the client library says, and the status that came with it. */
function explain(error: ConnectError): End {
  const [status] = error.findDetails(StatusSchema);
  return {
    code: Code[error.code],
    message: error.rawMessage,
    reason: status === undefined ? "" : Reason[status.reason],
    httpCode: status?.httpCode ?? 0,
    kubernetes: status?.kubernetes,
  };
}
