// A client by the TLS of Java (JSSE): TlsClient HOST PORT CA.pem PROTOCOL < what it says, a line of hex at a time. Prints the
// version, the cipher suite and the application protocol that came about; then for each line what it heard, until the server
// was silent for a second.

import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.SocketTimeoutException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class TlsClient {
    public static void main(String[] args) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (InputStream ca = new FileInputStream(args[2])) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(ca));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(args[0], Integer.parseInt(args[1]))) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setProtocols(new String[] {args[3]});
            parameters.setApplicationProtocols(new String[] {"iris/1"});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            System.out.println(socket.getSession().getProtocol());
            System.out.println(socket.getSession().getCipherSuite());
            System.out.println(socket.getApplicationProtocol());
            BufferedReader said = new BufferedReader(new InputStreamReader(System.in));
            for (String line; (line = said.readLine()) != null; ) {
                socket.getOutputStream().write(HexFormat.of().parseHex(line));
                System.out.println(hear(socket));
            }
        }
    }

    private static String hear(SSLSocket socket) throws IOException {
        StringBuilder heard = new StringBuilder();
        socket.setSoTimeout(60_000);
        try {
            for (int octet; (octet = socket.getInputStream().read()) >= 0; ) {
                heard.append(String.format("%02x", octet));
                socket.setSoTimeout(1000);
            }
        } catch (SocketTimeoutException silent) {
            // All was said.
        }
        return heard.toString();
    }
}
